"""A process that brings one stage after the other up to date, and the Worker that talks to it.

`python -m flows.dvc.worker` runs `dvc repro --single-item STAGE` for each stage named on its
standard input, and ends with the end of it. What this saves against one DVC process a stage: DVC's
imports, those of the stages (see fork_server), and most of the time that it takes to write
dvc.lock, which grows to thousands of lines.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from flows import guard
from flows.dvc import fork_server, internals, restoring
from flows.order import Outcome
from tasks.running.environment import PIPELINE_RUN
from tasks.running.stage import UNREACHED

# ends the name of a stage that is to run in any case
_FORCE = "\x1eforce"

# begins the line that ends a stage's output; its exit code follows
_DONE = "\x1edone "

# ends DVC's line on a stage that a network kept from ending well
_UNREACHED = f"exited with {UNREACHED}"


class Worker:
    """A guarded process that brings one stage after the other up to date."""

    def __init__(self, pipeline: str) -> None:
        """Start the process; `pipeline` names the pipeline run that the stages belong to."""
        self._process = guard.start(
            ["flows.dvc.worker"],
            more={PIPELINE_RUN: pipeline},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def bring_up_to_date(
        self, name: str, show: Callable[[str], None], *, force: bool = False
    ) -> Outcome:
        """Wait for the stage's end, handing on its lines without DVC's own.

        force: run it though nothing has changed.
        """
        source, sink = self._process.stdout, self._process.stdin
        if source is None or sink is None:
            raise RuntimeError("the worker was started without pipes")
        with suppress(BrokenPipeError):
            sink.write(f"{name}{_FORCE if force else ''}\n")
            sink.flush()
        outcome, unreached = Outcome.FAILED, False
        for line in source:
            text = line.rstrip()
            if text.startswith(_DONE):
                if text == f"{_DONE}0":
                    return outcome
                return Outcome.UNREACHED if unreached else Outcome.FAILED
            if text.startswith(internals.RAN):
                outcome = Outcome.RAN
            elif text.endswith(internals.UNCHANGED):
                outcome = Outcome.UNCHANGED
            elif internals.RESTORED in text:
                outcome = Outcome.RESTORED
            elif text.endswith(_UNREACHED):
                unreached = True
            elif text and not text.startswith(internals.NOISE):
                show(text)
        show("its process was killed")
        return Outcome.FAILED

    @staticmethod
    def stop(*workers: "Worker") -> None:
        """End workers with all that they started."""
        for worker in workers:
            worker._close(worker._process.stdin)  # the end of its work, after the present stage
        guard.stop(*(worker._process for worker in workers))
        for worker in workers:
            worker._close(worker._process.stdout)

    def _close(self, pipe: IO[str] | None) -> None:
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()


def main() -> None:
    """Bring each stage named on the standard input up to date."""
    names = fork_server.take_stdin()
    internals.write_lock_whole()
    restoring.verify()
    internals.fork_stages()
    for line in names:
        name = line.strip().removesuffix(_FORCE)
        more = ["--force"] if line.rstrip().endswith(_FORCE) else []
        code = internals.main(["--wait-for-lock", "repro", "--single-item", *more, name])
        sys.stderr.flush()
        print(f"{_DONE}{code}", flush=True)


if __name__ == "__main__":
    main()
