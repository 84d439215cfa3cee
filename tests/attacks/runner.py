"""Runs cases, each in a forked process with limits of time and memory, and counts how they end."""

import multiprocessing
import os
import resource
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from tests.attacks.cases import SEVERITIES, Case, FaultError

_FORK = multiprocessing.get_context("fork")  # each case starts with torch imported


@dataclass
class Count:
    """How the cases of a room ended."""

    tried: int = 0
    mutations: int = 0
    """Of those tried, the mutations of checkpoints and of state files."""
    good: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, case: Case, tried: int, fault: str | None) -> None:
        """Count a case that has ended."""
        self.tried += tried
        self.mutations += tried if case.mutations else 0
        if fault is None:
            self.good += tried
        else:
            self.faults[case.severity] += 1

    def row(self, room: str) -> str:
        """Format the counts as a row of the table."""
        faults = "  ".join(f"{self.faults[severity]:>8}" for severity in SEVERITIES)
        counts = f"{self.tried:>7}  {self.mutations:>9}  {self.good:>7}"
        return f"{room:<14}  {counts}  {faults}  {self.seconds:>7.0f}"


HEADER = "  ".join(
    [
        f"{'room':<14}",
        *(f"{'tried':>7}", f"{'mutations':>9}", f"{'good':>7}"),
        *(f"{severity:>8}" for severity in SEVERITIES),
        f"{'seconds':>7}",
    ]
)


def total(counts: Iterable[Count]) -> Count:
    """Add the counts of rooms."""
    whole = Count()
    for count in counts:
        whole.tried += count.tried
        whole.mutations += count.mutations
        whole.good += count.good
        whole.faults.update(count.faults)
        whole.seconds += count.seconds
    return whole


def run(cases: Iterable[Case]) -> Iterator[tuple[Case, int, str | None]]:
    """Run each case; give it, how many things it tried, and the fault seen, or None."""
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as folder:
            yield (case, *_alone(case, Path(folder)))


def _alone(case: Case, folder: Path) -> tuple[int, str | None]:
    """Run the case in a process of its own; what is left of its group is killed after it."""
    ours, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_child, args=(case, folder, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        if not ours.poll(case.seconds):
            return 1, f"hangs: no end after {case.seconds:g} s"
        tried, fault = ours.recv()
        return int(tried), fault
    except EOFError:
        process.join()
        return 1, f"the process ended with {process.exitcode}"
    finally:
        _kill(process.pid)
        process.join()
        ours.close()


def _child(case: Case, folder: Path, answer: Connection) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it prints would drown the counts
    if case.memory is not None:
        limit = psutil.Process().memory_info().vms + case.memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        answer.send((case.run(folder) or 1, None))
    except FaultError as fault:
        answer.send((1, str(fault)))
    except BaseException:
        answer.send((1, traceback.format_exc(limit=-4)))


def _kill(pid: int | None) -> None:
    """Kill the case's process and what it left behind, in its session and among its children."""
    if pid is None:
        return
    left = []
    with suppress(psutil.NoSuchProcess):
        left = psutil.Process(pid).children(recursive=True)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
