"""`python -m flows.guard MODULE ARGUMENT...`: runs a module in a process that ends with its parent.

For everything that the pipeline starts: what is killed with kill -9 cannot end its children itself.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.running import processes

_GRACE = ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))


def start(
    arguments: Sequence[str], more: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start a module with its arguments, guarded, in a session of its own.

    `more` is added to its environment; `options` are Popen's.
    """
    command = [sys.executable, "-m", "flows.guard", *arguments]
    variables = environment(**(more or {}))
    return subprocess.Popen(command, start_new_session=True, text=True, env=variables, **options)


def environment(**more: str) -> Mapping[str, str]:
    """Make the environment of a child: `python` is this interpreter, activated or not."""
    folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


def stop(*processes: subprocess.Popen[str]) -> None:
    """End processes that start() gave and all that they started: asks twice, then kills."""
    for sign, seconds in _GRACE:
        asked = [process for process in processes if _signal(process, sign)]
        until = time.monotonic() + seconds
        for process in asked:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        if all(process.poll() is not None for process in processes):
            break
    for process in processes:
        _signal(process, signal.SIGKILL)  # what outlived the first of the group
        process.wait()


def _signal(process: subprocess.Popen[str], sign: signal.Signals) -> bool:
    """Signal the process's group; tell whether there was someone left in it."""
    try:
        os.killpg(process.pid, sign)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_group_with(owner: int) -> None:
    """Have this process and all of its group killed within half a second of the end of `owner`."""
    processes.at_end_of(owner, lambda: os.killpg(os.getpgid(0), signal.SIGKILL))


def main() -> None:
    """Run the module named in the arguments, as `python -m` does."""
    _end_group_with(os.getppid())
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # Ctrl-C while the module was still being imported, for one
        sys.exit(130)


if __name__ == "__main__":
    main()
