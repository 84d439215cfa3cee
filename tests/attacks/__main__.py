"""`python -m tests.attacks [ROOM...]`: the round, a room after the other, with its counts."""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.runner import HEADER, Count, run

ROOMS = (
    "checkpoints",
    "state_files",
    "images",
    "suites",
    "damage",
    "surroundings",
    "servers",
    "datasets",
)


def cases(room: str) -> Iterator[Case]:
    """Give the cases of a room: those of the module of its name."""
    found: Iterator[Case] = importlib.import_module(f"tests.attacks.{room}").cases()
    return found


def main() -> int:
    """Try all cases of the rooms asked for; return 1 if one was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"default: {' '.join(ROOMS)}")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names hold this")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(ROOMS)
    if unknown:
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    counts: dict[str, Count] = {}
    began = time.monotonic()
    for room in options.rooms or ROOMS:
        count = counts[room] = Count()
        for case, tried, fault in run(c for c in cases(room) if options.only in c.name):
            count.tried += tried
            if fault is None:
                count.good += tried
            else:
                count.faults[case.severity] += 1
                print(f"FAULT ({case.severity}) {room}: {case.name}\n{fault}\n", flush=True)
        print(f"{room}: {count.tried} tried, {time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{HEADER}")
    for room, count in counts.items():
        print(count.row(room))
    print(total(counts).row("all"))
    return 1 if total(counts).faults else 0


def total(counts: dict[str, Count]) -> Count:
    """Add the counts of all rooms."""
    whole = Count()
    for count in counts.values():
        whole.tried += count.tried
        whole.good += count.good
        whole.faults.update(count.faults)
    return whole


if __name__ == "__main__":
    sys.exit(main())
