"""What benchmarks ask of the machine: its memory and that of processes (Linux)."""

import sys
from pathlib import Path

from tasks.running.resources import GIB


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr, flush=True)


def memory_available() -> float:
    """GiB that the machine can give without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    line = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / GIB
