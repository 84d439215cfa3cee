"""Folders for unfinished work, beside what it becomes. Nothing here imports torch."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError

_RECIPE = "recipe.json"
_LOCK = "lock"


def taken_fault(out: Path, option: str = "out") -> str | None:
    """Say what keeps a result from being written to `out`; None where there is nothing."""
    if not out.name:
        return f"{option} = {str(out)!r}: must be the path of something new"
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return None
    if os.path.lexists(out):
        return (
            f"{option} = {str(out)!r}: something is there already, and nothing is overwritten; "
            "give a new path, or move it away"
        )
    return None


@contextmanager
def work_folder(out: Path, recipe: Mapping[str, Any]) -> Iterator[Path]:
    """Open the folder `<out>.partial` for the work of one recipe; it is removed at the end.

    After an interruption it stays, and the same recipe goes on from what is in it; after an
    InputError, which the same recipe would meet again, it does not. recipe: as JSON. Raises
    InputError when the folder is another recipe's, or another process is at work in it.
    """
    folder = out.with_name(f"{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is at work there; wait for it") from error
        _check_recipe(folder, json.loads(json.dumps(recipe)))
        try:
            yield folder
        except InputError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _check_recipe(folder: Path, recipe: Any) -> None:
    path = folder / _RECIPE
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if known != recipe:
            raise InputError(
                f"{folder}: holds unfinished work of another recipe; give the command that began "
                "it to go on, or remove the folder"
            )
        return
    others = sorted(entry.name for entry in folder.iterdir() if entry.name != _LOCK)
    if others:
        raise InputError(
            f"{folder}: is needed for unfinished work, and holds {', '.join(others[:3])}; move it "
            "away, or give another path"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def put_in_place(made: Path, out: Path) -> None:
    """Rename a folder or file that is whole to where it belongs.

    Raises InputError where something has come there meanwhile.
    """
    fault = taken_fault(out)
    if fault:
        raise InputError(fault)
    os.replace(made, out)
