"""Going on from a state file, or anew where it cannot be gone on from."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

from adamerge_core import state_files
from adamerge_core.state_files import StateFileError
from tasks.shared.resumable_rows import ResumableRows

Step = TypeVar("Step")


def resumed(
    start: Callable[[], Iterator[Step]], state: Path | None, rows: ResumableRows
) -> Iterator[Step]:
    """Go through the steps that `start` yields, from its state file on where there is one.

    A file that is damaged, of another run, or whose curve lacks rows is set aside under another
    name; that is said, and the steps begin anew. rows: the curve so far.
    """
    if state is not None and state.exists():
        try:
            done = state_files.read(state).step
            if not rows.reach(done):
                raise StateFileError(f"the curve beside {state} lacks rows of its {done} steps")
            steps = start()
            first = next(steps)
        except StateFileError as error:
            print(f"{error}\nit is now {set_aside(state)}; this begins anew", flush=True)
        else:
            yield first
            yield from steps
            return
    yield from start()


def set_aside(path: Path) -> Path:
    """Rename a file to the first free name `<name>.set-aside-<number>`; returns that."""
    for number in count(1):
        aside = path.with_name(f"{path.name}.set-aside-{number}")
        if not aside.exists():
            return path.rename(aside)
    raise AssertionError("numbers do not end")
