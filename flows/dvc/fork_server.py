"""Stages as forks of a process that has their libraries imported.

What this saves against a process a stage: the imports of PyTorch and open_clip, some seconds of a
core each time, which is most of what a small stage takes. Only libraries are imported ahead, once
a stage had to import them itself: the project's own modules are read anew for every stage. `dvc
repro` alone starts a process a stage.
"""

import gc
import importlib
import io
import json
import mmap
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from typing import IO, Any

from tasks.running import processes


class ForkServer:
    """A process that runs modules in forks of itself, one after the other."""

    def __init__(self, libraries: Sequence[str] = ("torch", "open_clip")) -> None:
        """Start the process; it ends with this one.

        libraries: each is imported ahead for those that follow a module that has imported it.
        """
        read, write = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.dvc.fork_server", str(write), *libraries],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=[write],
        )
        os.close(write)
        self._replies = os.fdopen(read, encoding="ascii")

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def run(self, module: str, arguments: list[str], env: Mapping[str, str], cwd: str) -> int:
        """Run a module as `python -m` does, without an input; return its exit code, or the negative
        of the signal that ended it.
        """
        request = {"module": module, "arguments": arguments, "env": dict(env), "cwd": cwd}
        pipe: Any = self._process.stdin
        try:
            print(json.dumps(request), file=pipe, flush=True)
            reply = self._replies.readline()
        except BrokenPipeError:
            reply = ""
        if reply:
            return int(reply)
        self._process.wait()
        return -signal.SIGKILL  # a killed server's fork is killed with it

    def close(self) -> None:
        """Wait for the end of the process, which has no more to run."""
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._replies.close()


# --- in the server ------------------------------------------------------------------------------


def take_stdin() -> io.TextIOBase:
    """Take the standard input from the children, which then read from nothing."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return requests


def _serve(libraries: Sequence[str], requests: Iterable[str], replies: IO[str]) -> None:
    """Fork for each request, wait for the end, and reply its exit code."""
    forks, worker = get_context("fork"), os.getppid()
    used = mmap.mmap(-1, len(libraries))  # a byte a library, in the memory of all forks
    for line in requests:
        _import(library for library, byte in zip(libraries, used[:], strict=True) if byte)
        stage = forks.Process(target=_run, args=(json.loads(line), worker, libraries, used))
        stage.start()
        stage.join()
        print(stage.exitcode, file=replies, flush=True)


def _import(libraries: Iterable[str]) -> None:
    """Import libraries; no garbage collection looks at them: in a fork it would copy them."""
    gc.disable()
    for library in libraries:
        importlib.import_module(library)
    gc.freeze()
    gc.enable()


def _run(
    request: Mapping[str, Any], worker: int, libraries: Sequence[str], used: mmap.mmap
) -> None:
    """Run a module, and note which of the libraries it has imported."""
    try:
        _become(request, worker)
    finally:
        used[:] = bytes(library in sys.modules for library in libraries)


def _become(request: Mapping[str, Any], worker: int) -> None:
    """Go on as `python -m MODULE ARGUMENT...`, to be killed with the server and its worker."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes.killed_with_parent()
    processes.at_end_of(worker, lambda: os.kill(os.getpid(), signal.SIGKILL))
    processes.show_as(request["module"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Serve the process above until it ends."""
    # its threads are OpenBLAS's, which ends them before a fork and starts them after it
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    processes.killed_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the stage alone
    number, *libraries = sys.argv[1:]
    with os.fdopen(int(number), "w", encoding="ascii") as replies:
        _serve(libraries, take_stdin(), replies)


if __name__ == "__main__":
    main()
