"""What DVC restores from its cache is verified by its content.

DVC takes a cache object for whole if it is read-only, or if its times and size are those that it
noted: a bit that a disk flips changes neither. So before a stage's outputs are restored their
objects are hashed here. One that is not what its name says is set aside, and the stage runs again.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.stage import Stage
from dvc.stage.cache import StageCache, _get_cache_hash
from dvc_data.hashfile.db.local import LocalHashFileDB

from adamerge_core.errors import InputError
from tasks.running.aside import set_aside
from tasks.running.hashes import md5

VERIFY_BELOW_GB = "ADAMERGE_VERIFY_BELOW_GB"
"""The environment variable that has the size in GB up to which a restored file is hashed."""

_RUNS_AGAIN = "its stage runs again"

_check_object: Callable[..., Any] = LocalHashFileDB.check
_load_entry: Callable[[StageCache, str, str], Any] = StageCache._load_cache
_load_newest: Callable[[StageCache, Stage], Any] = StageCache._load


def verify() -> None:
    """Have DVC verify in this process what it restores; it has no setting for its own cache.

    Raises InputError where the size up to which files are hashed is no number.
    """
    largest()
    LocalHashFileDB.check = _check  # type: ignore[method-assign, assignment]
    Stage.outs_cached = _outs_are_whole
    StageCache._load_cache = _load_whole_entry
    StageCache._load = _load_newest_whole


def largest() -> float:
    """Return how many bytes a file may have to be verified; without a setting any number.

    Raises InputError where the setting is no such number.
    """
    value = os.environ.get(VERIFY_BELOW_GB, "inf")
    try:
        size = float(value)
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise InputError(
            f"{VERIFY_BELOW_GB}={value!r}: must be a number of GB from 0, up to which a file is "
            "hashed when it is restored; unset it, and all are"
        )
    return size * 1e9


def _outs_are_whole(stage: Stage) -> bool:
    """Tell whether the cache has all outputs of the stage, as they were; name each damaged one."""
    damaged = [out for out in stage.outs if not _is_whole(out)]
    return not damaged


def _is_whole(out: Output) -> bool:
    if not out.use_cache:
        return not out.changed()
    oid = out.hash_info.value if out.hash_info else None
    if oid is not None:
        path = Path(out.cache.oid_to_path(oid))
        fault = _fault(path, oid)
        if fault:
            _set_aside(path, f"{fault}; it belongs to {out.def_path}")
    return not out.changed_cache()


def _check(cache: LocalHashFileDB, oid: str, *arguments: Any, **options: Any) -> Any:
    """Look for an object as DVC does; one that is no file, or cannot be read, is missing."""
    path = Path(cache.oid_to_path(oid))
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        _set_aside(path.parent, "is no folder")
    fault = "is no file" if os.path.lexists(path) and not path.is_file() else None
    if fault is None:
        try:
            return _check_object(cache, oid, *arguments, **options)
        except FileNotFoundError:
            raise
        except OSError as error:
            fault = f"cannot be read ({error.strerror})"
    _set_aside(path, fault)
    raise FileNotFoundError(path)


def _set_aside(path: Path, why: str) -> None:
    set_aside(Path(os.path.relpath(path)), why, _RUNS_AGAIN)


def _fault(path: Path, oid: str) -> str | None:
    """Say what is wrong with the content of the cache's object with the md5 `oid`."""
    if not path.is_file():
        return None  # as DVC will see
    try:
        if path.stat().st_size > largest():
            print(f"{path.name} is larger than {VERIFY_BELOW_GB}: restored unverified", flush=True)
            return None
        found = md5(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    # that of a folder's list ends with .dir
    return None if found == oid.removesuffix(".dir") else f"is damaged: its md5 is {found}"


def _load_newest_whole(cache: StageCache, stage: Stage) -> Any:
    """Read the newest of the run cache's entries for a stage; links to nothing are set aside."""
    try:
        return _load_newest(cache, stage)
    except FileNotFoundError:  # DVC asks for the time of what a link leads to
        for path in Path(cache.cache_dir).glob("*/*/*"):
            if path.is_symlink() and not path.exists():
                _set_aside(path, f"leads to {path.readlink()}, which is not there")
        return _load_newest(cache, stage)


def _load_whole_entry(cache: StageCache, key: str, value: str | None) -> Any:
    """Read what the run cache knows of a finished stage; None where it is not as it was written.

    The name of such a file is the hash of its content; DVC gives None where all were set aside.
    """
    if value is None:
        return None
    path = Path(cache._get_cache_path(key, value))
    try:
        entry = _load_entry(cache, key, value)
        if entry is None or _get_cache_hash(entry) == value:
            return entry
        fault = "is damaged: its name is not the hash of its content"
    except (OSError, DvcException, ValueError, TypeError, KeyError, AttributeError) as error:
        fault = f"is damaged ({type(error).__name__})"
    if os.path.lexists(path):
        _set_aside(path, fault)
    return None
