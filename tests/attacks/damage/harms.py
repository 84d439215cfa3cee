"""How a file is harmed, its times kept; what the parts of the room share."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks import projects
from tests.attacks.cases import Case, Severity

Harm = Callable[[Path], object]


def case(
    name: str, run: Callable[[projects.Project], Any], severity: Severity = "medium", **more: Any
) -> Case:
    """Make a case of what is done in a copy of the toy project."""

    def within(folder: Path) -> int | None:
        answer = run(projects.copy(folder / "toy"))
        return answer if isinstance(answer, int) else None

    return Case(name, within, severity, **{"seconds": 120.0, "memory": None} | more)


def rewrite(path: Path, content: bytes) -> None:
    """Write other bytes in place, with the mode, the times and the inode that were there."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    rewrite(path, bytes(content))


def cut(path: Path) -> None:
    rewrite(path, path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    rewrite(path, bytes(range(256)) * 20)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def full_folder(path: Path) -> None:
    folder(path)
    (path / "x").write_text("x")


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path, to: str = "/nowhere/at/all") -> None:
    path.unlink()
    path.symlink_to(to)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, Harm] = {
    "one bit flipped": flip,
    "cut": cut,
    "garbage": garbage,
    "a folder": folder,
    "a folder with a file": full_folder,
    "a link to nothing": link,
    "a link to /dev/zero": partial(link, to="/dev/zero"),
    "a fifo": fifo,
}
