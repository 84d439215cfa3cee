"""A user's files, as sources read them: what must hold of them, and their bytes.

Nothing here imports torch.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.vision.decoding import IMAGE_SUFFIXES
from adamerge_core.vision.names import printable


def tree_faults(root: Path) -> list[str]:
    """List what in a folder, or at a file, keeps it from being read whole, a line each.

    All below it must be regular files, or links to such, and folders that this user may read, with
    names in UTF-8: DVC reads all of a folder, and waits forever at a named pipe. Links to folders
    are not followed below the root.
    """
    if not root.is_dir():
        fault = file_fault(root)
        return [f"{printable(str(root))}: {fault}"] if fault else []
    faults: list[str] = []
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            faults.append(f"{printable(folder)}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            if fault := _entry_fault(entry):
                faults.append(f"{printable(entry.path)}: {fault}")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return faults


def _entry_fault(entry: os.DirEntry[str]) -> str | None:
    if Path(entry.path).is_dir():  # not the entry's own, which raises at a loop of links
        return None if _is_utf8(entry.name) else "its name is not UTF-8; rename it"
    return file_fault(Path(entry.path))


def file_fault(path: Path) -> str | None:
    """Say what keeps a path from being a file that can be read; None if nothing does."""
    if not _is_utf8(path.name):
        return "its name is not UTF-8; rename it"
    try:
        status = path.stat()
    except FileNotFoundError:
        return "a link to nothing; remove it" if path.is_symlink() else "no such file"
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder; must be a file"
    if not stat.S_ISREG(status.st_mode):
        return "is a named pipe, a socket or a device; must be a regular file"
    if not os.access(path, os.R_OK):
        return "cannot be read (Permission denied)"
    return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_file(path: Path, name: str, limit: int) -> bytes:
    """Read a file of at most `limit` bytes.

    name: what a message calls it. Raises InputError where it cannot be read, is no regular file,
    or is larger, before more than that is in memory.
    """
    try:
        with open_regular(path, "file") as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > limit else b"".join(_chunks(file.fileno(), limit + 1))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); replace it") from error
    except InputError as error:
        raise InputError(f"{name}: {printable(str(error))}") from error
    size = max(size, len(content))  # some files are longer than they say
    if size > limit:
        raise InputError(f"{name}: has {size} bytes or more; must have at most {limit}")
    return content


def _chunks(descriptor: int, limit: int) -> Iterator[bytes]:
    left = limit
    while left and (chunk := os.read(descriptor, min(left, 2**22))):
        left -= len(chunk)
        yield chunk


def outside(root: Path, files: Iterable[Path]) -> list[str]:
    """Name the files that lie outside of a folder, going by their paths."""
    return [printable(file.as_posix()) for file in files if not file.is_relative_to(root)]


def is_image(path: Path) -> bool:
    """Tell whether a file is an image, by its suffix."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or one that a system puts beside the user's."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")
