"""Archives of images that were dropped after `prepare`, which nothing misses until it reads them.

DVC takes a stage whose output or dependency is gone for changed, and would run the download again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.dvc import internals
from tasks.graph import paths

_GONE = ("deleted", "not in cache")
"""What DVC says of a file that is not there, and of an output that its cache has not either."""


def without_dropped(changes: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the stages that lack dropped archives, and nothing else.

    changes: DVC's findings by stage. An archive is dropped when neither data/ nor DVC's cache has
    it; one that a stage with other findings reads is needed, and its stages stay.
    """
    gone = {path for found in changes.values() for path in _gone(found)}
    missing = {path for path in gone if _is_archive(path) and not Path(path).exists()}
    if not missing:
        return dict(changes)
    objects = internals.cache_objects(missing)
    dropped = {path for path in missing if path in objects and not objects[path].exists()}
    quiet = {name for name, found in changes.items() if _lacks_only(found, dropped)}
    needed = {path for name, found in changes.items() if name not in quiet for path in _gone(found)}
    return {
        name: found
        for name, found in changes.items()
        if name not in quiet or needed.intersection(_gone(found))
    }


def _is_archive(path: str) -> bool:
    dataset = Path(path).parent.parent.name
    return Path(path) == paths.raw(dataset)


def _gone(found: list[Any]) -> list[str]:
    """List the files that a stage lacks, by DVC's findings of it."""
    return [
        path
        for change in found
        for files in (change.values() if isinstance(change, dict) else ())
        if isinstance(files, dict)
        for path, state in files.items()
        if state in _GONE
    ]


def _lacks_only(found: list[Any], dropped: set[str]) -> bool:
    """Tell whether all that DVC found of a stage is that dropped archives are gone."""
    return all(
        isinstance(change, dict)
        and all(
            isinstance(files, dict)
            and all(state in _GONE and path in dropped for path, state in files.items())
            for files in change.values()
        )
        for change in found
    )
