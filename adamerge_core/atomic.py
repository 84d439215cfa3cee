"""Files that are either whole or absent, whatever interrupts their writing."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<pid>\d+)-[0-9a-f]{32}\.part(\..*)?", re.DOTALL)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path, renamed to `path` at the end.

    The folder is made if it is missing. Write to the yielded path in any way; it lies in the same
    folder, exists, is empty, and keeps the suffix of `path`. On
    success the content is on disk before the rename, so a reader, a crash or a power cut meets
    the old file or the new one, never a part. On an exception the temporary file is removed and
    `path` is as it was.

    Raises OSError of the file system, for example when the disk is full.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.part{target.suffix}")
    temporary.open("xb").close()
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files in `folder` that processes left which are gone; list them.

    They are told from other files by their whole name: a dot, the id of the process that wrote,
    32 hexadecimal digits, `.part` and the target's suffix. One that cannot be removed stays.
    """
    removed = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _is_running(int(match["pid"])) and not path.is_dir():
                with suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
