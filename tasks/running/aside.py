"""What is damaged, or in the way, is moved aside: nothing is deleted, and the work goes on."""

import itertools
import os
import shutil
from pathlib import Path

from tasks.running.environment import WORK

ASIDE = WORK / "aside"


def set_aside(path: Path, why: str, then: str) -> Path:
    """Move a file or folder to .adamerge/aside, print a line that says so, and return its place.

    `why` goes on from the path's name, `then` says what follows: `dvc.lock is torn (moved to
    .adamerge/aside/dvc.lock.1); finished stages come from the cache`. Raises OSError.
    """
    folder = ASIDE
    if path == ASIDE or path in ASIDE.parents:  # it stands where the folder would be
        folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    place = _free(folder, path.name)
    shutil.move(path, place)
    print(f"{path} {why} (moved to {place}); {then}", flush=True)
    return place


def _free(folder: Path, name: str) -> Path:
    places = (folder / f"{name}.{number}" for number in itertools.count(1))
    return next(place for place in places if not os.path.lexists(place))
