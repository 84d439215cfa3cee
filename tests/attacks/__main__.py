"""`python -m tests.attacks [ROOM...]`: the round, a room after the other, with its counts."""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.runner import HEADER, Count, run, total

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

_TELL_SECONDS = 30.0


def cases(room: str) -> Iterator[Case]:
    """Give the cases of a room: those of the module of its name."""
    found: Iterator[Case] = importlib.import_module(f"tests.attacks.{room}").cases()
    return found


def main() -> int:
    """Try all cases of the rooms asked for; return 1 if one was a fault, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"default: {' '.join(ROOMS)}")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names hold this")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(ROOMS)
    if unknown:
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    counts: dict[str, Count] = {}
    interrupted = False
    try:
        for room in options.rooms or ROOMS:
            counts[room] = Count()
            _try_room(room, options.only, counts[room])
    except KeyboardInterrupt:
        interrupted = True
        print("\ninterrupted; so far:")
    whole = total(counts.values())
    print(f"\n{HEADER}")
    for room, count in counts.items():
        print(count.row(room))
    print(whole.row("all"))
    return 130 if interrupted else int(bool(whole.faults))


def _try_room(room: str, only: str, count: Count) -> None:
    """Try the cases of a room; print each fault, and every half a minute how far it is."""
    began = told = time.monotonic()
    chosen = [case for case in cases(room) if only in case.name]
    print(f"{room}: {len(chosen)} cases", flush=True)
    for number, (case, tried, fault) in enumerate(run(chosen), 1):
        count.add(case, tried, fault)
        count.seconds = time.monotonic() - began
        if fault is not None:
            print(f"FAULT ({case.severity}) {room}: {case.name}\n{fault}\n", flush=True)
        if time.monotonic() - told > _TELL_SECONDS and number < len(chosen):
            told = time.monotonic()
            done = f"{number} of {len(chosen)} cases, {count.tried} tried"
            print(f"{room}: {done}, {count.seconds:.0f} s", flush=True)
    print(f"{room}: {count.tried} tried, {count.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
