"""The project that a command is about: the folder above the user's that holds it."""

import os
from pathlib import Path

from adamerge_core.errors import InputError


def enter() -> Path:
    """Make the project's root the current folder, as git does; return where the user stands.

    Raises InputError where neither the current folder nor one above it is a project's.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise InputError(
            "the current folder was removed; change to the project's folder"
        ) from error
    for folder in (here, *here.parents):
        if _is_root(folder):
            os.chdir(folder)
            return here
    raise InputError(
        f"{here} is in no project: neither it nor a folder above it holds a dvc.yaml, or suites/ "
        "and tasks/; run this in a copy of adamerge's repository"
    )


def _is_root(folder: Path) -> bool:
    parts = (folder / "suites").is_dir() and (folder / "tasks").is_dir()
    return parts or (folder / "dvc.yaml").exists()
