"""What goes wrong around the program, in words for a user."""

import errno
import os
import shutil
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)

_FIXES = {
    errno.EACCES: "give this user the right to it (ls -l says whose it is)",
    errno.EPERM: "give this user the right to it (ls -l says whose it is)",
    errno.EROFS: "its file system is mounted read-only: work in a copy elsewhere",
    errno.EFBIG: "the limit of this shell for the size of a file is too low: ulimit -f unlimited",
    errno.EMFILE: "the limit of this shell for open files is too low: ulimit -n 1024",
    errno.ENFILE: "the machine has too many open files: end other programs",
    errno.EIO: "the disk fails: copy the project to another one",
    errno.EISDIR: "a folder stands where a file belongs: move it away",
    errno.ENOTDIR: "a file stands where a folder belongs: move it away",
    errno.EEXIST: "something else stands there: move it away",
    errno.ENAMETOOLONG: "the path is too long: work in a folder with a shorter one",
    errno.ENOMEM: "the machine has too little memory: end other programs",
}


class OperationError(RuntimeError):
    """Something around the program fails: a database that another process holds, a server that does
    not start. The message says what to do.
    """


def explain(error: BaseException) -> str | None:
    """Say which file could not be used, why, and what to do; None for what is no such error."""
    number = error.errno if isinstance(error, OSError) else None
    full = ("No space left on device", "database or disk is full")  # of safetensors, torch, SQLite
    if number in _FULL or any(text in str(error) for text in full):
        free = shutil.disk_usage(Path()).free / 2**20
        return (
            f"the disk is full ({free:.0f} MB free in {Path.cwd()}): free some space and run the "
            "same command again; finished stages are kept, this one resumes"
        )
    if "disk I/O error" in str(error):  # SQLite's word for all but a full disk
        return (
            f"a database in {Path.cwd()} cannot be written ({error}): the disk fails, or the limit "
            "of this shell for the size of a file is too low (ulimit -f unlimited)"
        )
    if isinstance(error, OSError) and number in _FIXES:
        named = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return f"{named}{error.strerror}; {_FIXES[number]}"
    return None
