"""Files opened for reading, regular ones alone: nothing waits for a pipe or reads a device."""

import os
import stat
from io import FileIO
from pathlib import Path

from adamerge_core.errors import InputError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | os.PathLike[str], subject: str = "checkpoint") -> FileIO:
    """Open a regular file, or a link to one, for reading without a buffer.

    subject: what the message calls it. Raises InputError when it is missing, cannot be read, or is
    a folder, a named pipe, a socket or a device, which are not opened.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{subject} {path!r}: is no path; give a str or a pathlib.Path")
    try:
        _refuse_special(os.stat(path).st_mode, path, subject)
        # what stands there may have been replaced meanwhile: opening a pipe must not wait
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except FileNotFoundError as error:
        hint = "; it is a link to nothing" if os.path.islink(path) else ""
        raise InputError(f"{subject} {path}: no such file{hint}; give the path of one") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{subject} {path!s}: cannot be read ({reason})") from error
    file = FileIO(descriptor)
    try:
        _refuse_special(os.fstat(descriptor).st_mode, path, subject)
    except BaseException:
        file.close()
        raise
    return file


_BINARY = getattr(os, "O_BINARY", 0)


def _refuse_special(mode: int, path: str | os.PathLike[str], subject: str) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise InputError(f"{subject} {Path(path)}: is {kind}; give a regular file")
