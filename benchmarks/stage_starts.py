"""How long a stage takes to start and to end: as a fork of a warm process, and as one of its own.

`python -m benchmarks.stage_starts [--pairs N]`: both take turns, on a module that imports what a
stage with an encoder does; the medians, and the median of the ratios of neighbours.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

from flows.dvc.fork_server import ForkServer

MODULE = "tasks.shared.encoders"


def seconds(start: Callable[[], int]) -> float:
    """Measure from a start to its end; raises SystemExit where that is not a good one."""
    began = time.perf_counter()
    code = start()
    if code:
        raise SystemExit(f"{MODULE} ended with {code}")
    return time.perf_counter() - began


def own_process() -> int:
    """Start the module as DVC alone does, without its shell."""
    return subprocess.run([sys.executable, "-m", MODULE], check=False).returncode


def main() -> None:
    """Measure, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="of starts; default: 9")
    pairs = parser.parse_args().pairs
    with closing(ForkServer()) as server:

        def fork() -> int:
            return server.run(MODULE, [], os.environ, os.getcwd())

        for start in (fork, fork, own_process):  # libraries, files in memory
            seconds(start)
        measured = [(seconds(fork), seconds(own_process)) for _ in range(pairs)]
    forks, processes = zip(*measured, strict=True)
    print(f"{'a fork':<22}{median(forks):6.2f} s")
    print(f"{'a process of its own':<22}{median(processes):6.2f} s")
    ratios = [process / forked for forked, process in measured]
    print(f"{'ratio':<22}{median(ratios):6.1f}   (of {pairs} pairs)")


if __name__ == "__main__":
    main()
