"""Processes known for good: by pid, boot and clock ticks of their start."""

import ctypes
import getpass
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

# of prctl(2)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def process_facts(pid: int | None = None) -> dict[str, Any]:
    """Return the facts that tell a process from all others; without a `pid`, this process's."""
    pid = pid or os.getpid()
    return {
        "time": time.time(),
        "pid": pid,
        "pid_started": started(pid),
        "host": socket.gethostname(),
        "user": _user(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        return str(os.geteuid())


def owner_facts(owner: psutil.Process) -> dict[str, Any]:
    """Return the facts of the process that runs a stage, the stage's own or DVC's, for its journal.

    `owner_cmd` is its command: `dvc repro`, `dvc exp run -S ...`.
    """
    try:
        words = owner.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        words = []
    names = [Path(word).name for word in words]
    if "dvc" in names:  # a Python with that script, or with -m dvc
        words = ["dvc", *words[names.index("dvc") + 1 :]]
    return {
        "owner_pid": owner.pid,
        "owner_started": started(owner.pid),
        "owner_cmd": shlex.join(words),
    }


def is_alive(start: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote this start event still runs (on this host)."""
    here = start.get("host") == socket.gethostname()
    return here and runs(start.get("pid"), start.get("pid_started"))


def runs(pid: int | None, start: str | None) -> bool:
    """Tell whether the process `pid` that started at `start`, as started() has it, still runs."""
    return pid is not None and start is not None and started(pid) == start


def killed_with_parent() -> None:
    """Have the kernel kill this process at the end of its parent, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def show_as(name: str) -> None:
    """Have `ps` and `top` show this process as the first 15 bytes of a name, where they can be told
    (Linux).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def at_end_of(owner: int, then: Callable[[], None]) -> None:
    """Call `then`, in a thread, within half a second of the end of the process `owner`."""
    start = started(owner)

    def watch() -> None:
        while runs(owner, start):
            time.sleep(0.5)
        then()

    threading.Thread(target=watch, name="end with owner", daemon=True).start()


def started(pid: int) -> str | None:
    """What tells a process from a later one of the same pid: the boot, and the clock ticks from it
    to the start (proc(5)). None if it has ended.

    The time of day of the start would change whenever the clock is set.
    """
    try:
        # the name before it, in parentheses, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], fields[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return None if state in "ZX" else f"{boot}-{ticks}"
