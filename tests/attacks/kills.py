"""`python -m tests.attacks.kills`: kills one process after another while the real stages run.

A process of the kind whose turn it is (the flow, a worker, a stage, what brings journals into
MLflow, Prefect's server) is killed at a random moment. What is left must end by itself, leaving no
process behind; the command is started again until the work is done. Then the files must be those of
an undisturbed run, to the byte, and a new pass begins, until there were enough kills.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import Project
from small_suite import make_small

KINDS: dict[str, Callable[[str], bool]] = {
    "flow": lambda command: command.endswith("-m flows.cli run"),
    "worker": lambda command: "flows.dvc.worker" in command,
    "stage": lambda command: command.startswith("tasks."),
    "fork server": lambda command: "flows.dvc.fork_server" in command,
    "ingest": lambda command: "tasks.tracking.follower" in command,
    "server": lambda command: "flows.guard" in command and "prefect" in command,
}
"""Which commands are processes of a kind."""

_SECONDS = (3.0, 45.0)  # from a start to a kill: each start goes on from the one before
_END_SECONDS = 180.0  # servers are given time; a run whose computing goes on gets more


class KillError(AssertionError):
    """A run did not end as it must after a kill; the message says what was seen."""


@dataclass
class Counts:
    """How far the kills are."""

    most: int
    began: float = field(default_factory=time.monotonic)
    kills: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    undisturbed: float = 0.0
    """Seconds of a run without kills."""

    @property
    def killed(self) -> int:
        return sum(self.kills.values())

    def progress(self) -> str:
        """Say how many of all kills are done, and how long the others will take."""
        seconds = time.monotonic() - self.began
        left = seconds / max(1, self.killed) * (self.most - self.killed)
        return f"kill {self.killed}/{self.most}  {seconds:.0f} s, about {left:.0f} s left"

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {self.kills[kind]}" for kind in KINDS)
        return (
            f"{self.killed} kills ({kinds}), {self.passes} passes ended with the hashes of the "
            f"undisturbed run, {time.monotonic() - self.began:.0f} s"
        )


def main() -> int:
    """Kill as often as asked for; print a line a kill and the counts.

    Returns 1 if there was a fault, 130 after Ctrl-C or SIGTERM, which print the counts so far.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code, counts = 0, Counts(options.kills)
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        undisturbed, killed = (make_small(Path(folder) / name / "small") for name in ("a", "b"))
        try:
            took = _undisturbed(undisturbed)
            print(f"undisturbed: {len(undisturbed.hashes())} files in {took:.0f} s", flush=True)
            counts.began, counts.undisturbed = time.monotonic(), took
            _kill_often(killed, undisturbed, counts, random.Random(options.seed))
        except KillError as fault:
            code = 1
            print(f"FAULT after {counts.killed} kills: {fault}", flush=True)
            log = killed.root.parent / "log"
            print(log.read_text()[-3000:] if log.exists() else "", flush=True)
        except KeyboardInterrupt:
            code = 130
            print("interrupted; so far:")
        finally:
            _kill_all(undisturbed, killed)
    print(counts)
    return code


def _kill_often(killed: Project, undisturbed: Project, counts: Counts, dice: random.Random) -> None:
    while counts.killed < counts.most:
        _one_pass(killed, counts, dice)
        _compare(killed, undisturbed)
        counts.passes += 1
        _begin_anew(killed)


def _undisturbed(project: Project) -> float:
    began = time.monotonic()
    if _start(project).wait() != 0:
        raise KillError("the undisturbed run failed")
    return time.monotonic() - began


def _start(project: Project) -> "subprocess.Popen[bytes]":
    with (project.root.parent / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run"],
            cwd=project.root,
            env={**os.environ, "PYTHONPATH": str(project.root)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _one_pass(project: Project, counts: Counts, dice: random.Random) -> None:
    """Start the command and kill, again and again, until the command has done all of its work."""
    while True:
        process = _start(project)
        kind = list(KINDS)[counts.killed % len(KINDS)]
        victim = None
        if counts.killed < counts.most:
            victim = _victim(project, process, kind, time.monotonic() + dice.uniform(*_SECONDS))
        if victim:
            victim.kill()
            counts.kills[kind] += 1
        code = _end(project, process, victim and kind, counts.undisturbed)
        if victim:
            print(f"{counts.progress()}  {kind:<11} the command ended with {code}", flush=True)
        elif code != 0:
            raise KillError(f"without a kill, the command ended with {code}")
        if code == 0:
            return


def _victim(
    project: Project, process: "subprocess.Popen[bytes]", kind: str, when: float
) -> psutil.Process | None:
    """Find the process to kill, from the time `when` on; None where the command ends before."""
    while process.poll() is None:
        if time.monotonic() >= when:
            found = [other for other in _at_work(project) if KINDS[kind](_command(other))]
            if found:
                return found[-1]
        time.sleep(0.05)
    return None


def _end(
    project: Project, process: "subprocess.Popen[bytes]", kind: str | None, undisturbed: float
) -> int:
    """Wait for the command's end, and that nothing of it is left at work."""
    what, seconds = f"{kind} was killed" if kind else "no kill", _END_SECONDS + 3 * undisturbed
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise KillError(f"{what}, and the command has no end after {seconds:.0f} s") from None
    # the ingestion outlives a killed flow, to record it
    until = time.monotonic() + 30.0 + undisturbed
    while left := [_command(other) for other in _at_work(project)]:
        if time.monotonic() > until:
            raise KillError(f"{kind} was killed, and these are left: {left}")
        time.sleep(0.2)
    return code


def _compare(killed: Project, undisturbed: Project) -> None:
    ours, theirs = killed.hashes(), undisturbed.hashes()
    other = [path for path in ours | theirs if ours.get(path) != theirs.get(path)]
    if other:
        raise KillError(f"{len(other)} files are not those of an undisturbed run: {other[:5]}")
    status = killed.run("dvc", "status", "-q")
    if status.returncode:
        raise KillError(f"dvc status: {status.stdout}")
    journals = list((killed.root / ".adamerge/journal").glob("*.jsonl"))
    if journals:
        raise KillError(f"journals are left: {journals}")


def _begin_anew(project: Project) -> None:
    """Forget all that was made, but for MLflow's runs."""
    for name in ("data", ".dvc/cache"):
        shutil.rmtree(project.root / name, ignore_errors=True)
    (project.root / "dvc.lock").unlink(missing_ok=True)


def _at_work(project: Project) -> list[psutil.Process]:
    """List the processes whose current folder is in the project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(
                project.root
            ):
                found.append(process)
    return found


def _command(process: psutil.Process) -> str:
    """Return a process's command; of a stage, which is a fork of another, the name that it took."""
    try:
        name, words = process.name(), process.cmdline()
        return name if name.startswith("tasks.") else " ".join(words)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _kill_all(*projects: Project) -> None:
    for project in projects:
        for process in _at_work(project):
            with suppress(psutil.NoSuchProcess):
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
