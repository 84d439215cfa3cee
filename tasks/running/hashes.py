"""Hashes of files and of stage runs, and files found again by their hash."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.running.dvc_config import object_folder

CACHE = Path(".dvc/cache/files/md5")


def md5(path: Path) -> str:
    """Compute the md5 of a file's bytes, as DVC writes it to dvc.lock."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def md5_of_dep(path: Path) -> str:
    """Compute the md5 of a file, or of a folder's names and md5s, as dvc.lock has it."""
    if not path.is_dir():
        return md5(path)
    files = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()}
    listing = [{"md5": md5(file), "relpath": name} for name, file in sorted(files.items())]
    return digest(listing) + ".dir"


def digest(value: Any) -> str:
    """Compute the md5 of a value as canonical JSON."""
    return hashlib.md5(json.dumps(value, sort_keys=True).encode()).hexdigest()


def signature(
    name: str, deps: Mapping[str, str], params: Mapping[str, Any], outs: Mapping[str, str]
) -> str:
    """Compute the signature of a finished stage run: an md5 of its name, what it read and wrote."""
    return digest([name, deps, params, outs])


def stored(path: Path, expected: str, root: Path = Path()) -> Path | None:
    """Find a file of the project `root` with this md5: `path` itself, else its copy in DVC's
    cache; else None.
    """
    places = (root / path, object_folder(root) / expected[:2] / expected[2:])
    return next((p for p in places if p.is_file() and md5(p) == expected), None)
