"""The follower: the process that brings the journals of a flow into MLflow while it runs.

`python -m tasks.tracking.follower` takes the key of the flow's pipeline run as a line on its
standard input, so that mlflow is imported by the time the flow knows the key, and goes on until
that run has ended, which closes that input, and is in MLflow. It outlives a killed flow, and then
records the kill.
"""

import os
import select
import subprocess
import sys
import time
from contextlib import nullcontext, suppress

from tasks.running import journal, processes
from tasks.running.environment import configure
from tasks.tracking.database import TrackingError
from tasks.tracking.ingest import IngestionError, ingest

_PAUSE = 2.0  # seconds between two looks at the journals
_END_SECONDS = 60.0


class Follower:
    """The flow's side: starts the process, hands it the key, waits for it."""

    def __init__(self) -> None:
        self._process, self._key = _started(), ""
        self.page = ""
        """The pipeline's run below the address of MLflow's server, after wait()."""

    def follow(self, key: str) -> None:
        """Have the process begin with the pipeline run `key`."""
        self._key = key
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{key}\n")
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """End the process: there is nothing to follow, and it has begun nothing."""
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Wait until all is in MLflow, or for a minute: it goes on by itself.

        A process that was killed, as where memory ran out, is replaced once.
        """
        self._close()
        if self._process.returncode is not None and self._process.returncode < 0:
            self._process = _started()
            self.follow(self._key)
            self._close()

    def _close(self) -> None:
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired), self._process.stdout or nullcontext() as said:
            self._process.wait(_END_SECONDS)
            self.page = said.read().strip() if said else ""


def _started() -> "subprocess.Popen[str]":
    # in a session of its own: Ctrl-C ends the flow, and the follower records that
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.tracking.follower"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def follow(key: str, flow: int) -> int:
    """Ingest until the pipeline run `key` of the process `flow` has ended and is in MLflow.

    Returns 1 if that cannot be: then the journals wait for the next command.
    """
    path, started = journal.FOLDER / f"{key}.jsonl", processes.started(flow)
    while True:
        alive = processes.runs(flow, started)  # before: its last words must not be missed
        trouble = _try()
        if not path.exists() or (trouble and not alive):
            break
        _pause(flow_ends=alive)
    if trouble:
        print(f"adamerge: {trouble}", file=sys.stderr)
    return 1 if trouble else 0


def _pause(*, flow_ends: bool) -> None:
    """Wait for the next look at the journals; where the flow is at work, at most until it ends."""
    if not flow_ends:
        time.sleep(_PAUSE)
    elif select.select([sys.stdin], [], [], _PAUSE)[0]:
        time.sleep(_PAUSE / 20)  # a moment after it closed its end: the process itself ends soon


def _try() -> str | None:
    """Ingests; returns what is wrong, if it fails."""
    try:
        ingest()
    except IngestionError as error:
        return str(error)
    return None


def main() -> int:
    """Follow the pipeline run named on the standard input; without one, ends at once."""
    flow = os.getppid()
    configure()
    import tasks.tracking.store  # noqa: F401 - takes seconds, so before there is work

    key = sys.stdin.readline().strip()
    if not key:
        return 0
    code = follow(key, flow)
    if not code:
        with suppress(BrokenPipeError):  # the flow was killed; print would fail once more at exit
            os.write(sys.stdout.fileno(), _page(key).encode())
    return code


def _page(key: str) -> str:
    """Find the page of the run of a pipeline; empty where MLflow cannot be asked."""
    from tasks.tracking.runs import explained
    from tasks.tracking.store import Store

    with suppress(TrackingError), explained():
        run = Store().pipeline(key)
        return run.page if run else ""
    return ""


if __name__ == "__main__":
    sys.exit(main())
