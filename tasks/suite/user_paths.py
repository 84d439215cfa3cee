"""Which files and folders of a user's a suite may name: those that dvc.yaml can carry."""

import os
import re
from pathlib import Path

from adamerge_core.vision.names import barred_in_paths

_OWN = ("data", ".dvc", ".git", ".adamerge")
"""Folders of the project that the pipeline itself writes."""

_LONGEST, _LONGEST_PART = 1000, 255  # bytes


def faults_of_path(path: Path) -> list[str]:
    """List the rules that a path, from the project's root, breaks, with the fix; a line each."""
    text, faults = path.as_posix(), []
    if "${" in text:
        faults.append("must not hold ${, which DVC takes for a parameter; rename the folder")
    if re.match("[A-Za-z][A-Za-z0-9+.-]*:", text):
        faults.append("is an address; give a folder or file of this machine")
    if barred := barred_in_paths(text):
        faults.append(f"must not hold the characters {barred}; rename the folder")
    elif max(map(_bytes, path.parts), default=0) > _LONGEST_PART or _bytes(text) > _LONGEST:
        faults.append(
            f"must have at most {_LONGEST} bytes, {_LONGEST_PART} a name; give a shorter one"
        )
    return faults or _in_the_project(text)


def _bytes(text: str) -> int:
    return len(os.fsencode(text))


def _in_the_project(text: str) -> list[str]:
    """Say whether a path leads to the project as a whole, or to what the pipeline writes."""
    there, project = Path(os.path.realpath(text)), Path(os.path.realpath("."))
    if project.is_relative_to(there):
        return ["holds the project itself; give the folder of the files alone"]
    for own in _OWN:
        if there.is_relative_to(project / own):
            return [f"lies in {own}/ of the project, which the pipeline writes; move the files"]
    return []
