"""What benchmarks ask of the machine: its memory and that of processes (Linux)."""

import sys
from pathlib import Path

GIB = 1 << 30


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr, flush=True)


def peak_resident(process: int | str = "self") -> float:
    """GiB, since the start of the process with that number; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    values = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(values[0]) * 1024 / GIB if values else 0.0


def memory_available() -> float:
    """GiB that the machine can give without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    line = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / GIB
