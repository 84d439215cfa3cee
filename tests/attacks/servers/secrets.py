"""The project's secret, and the folder that it lies in."""

import multiprocessing
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tasks.running.environment import WORK, work_folder
from tasks.running.secret import SECRET, project_secret
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.servers.served import NOBODY

BAD_SECRETS: dict[Callable[[], object], str] = {
    **{
        partial(SECRET.chmod, mode): f"mode {mode:04o}"
        for mode in (0o604, 0o602, 0o601, 0o640, 0o620, 0o610, 0o644, 0o664, 0o666, 0o777)
    },
    partial(SECRET.write_text, ""): "empty",
    partial(SECRET.write_text, "short"): "short",
    partial(SECRET.write_text, "a" * 42): "a character less",
    partial(SECRET.write_text, "a" * 500): "very long",
    partial(SECRET.write_text, "a" * 43 + " b"): "with a blank",
    partial(SECRET.write_bytes, b"\xff" * 50): "bytes",
    partial(SECRET.write_bytes, b"\0" * 50): "zeros, as after a power failure",
    partial(os.chown, SECRET, NOBODY, NOBODY): "of another user",
}


def _bad_secret(damage: Callable[[], object], folder: Path) -> None:
    before = project_secret()
    damage()
    refused(project_secret, str(SECRET), "must be a file that you own", f"rm -r {SECRET}")
    SECRET.unlink()
    if project_secret() == before:
        raise FaultError("the new secret is the old one")


def _secret_at_once(folder: Path) -> int:
    os.umask(0)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = set(pool.map(_secret_of, range(8)))
    modes = stat.S_IMODE(WORK.stat().st_mode), stat.S_IMODE(SECRET.stat().st_mode)
    if len(found) != 1 or modes != (0o700, 0o600) or len(list(WORK.iterdir())) != 1:
        raise FaultError(f"{len(found)} secrets, modes {modes}, {list(WORK.iterdir())}")
    for make in (os.mkfifo, os.mkdir, partial(os.symlink, "/dev/zero"), partial(os.symlink, "x")):
        SECRET.rmdir() if SECRET.is_dir() else SECRET.unlink()
        make(SECRET)
        refused(project_secret, str(SECRET))
    return 12


def _secret_of(_: int) -> str:
    return project_secret()


def _wide_folder(folder: Path) -> None:
    WORK.mkdir(mode=0o777)
    WORK.chmod(0o777)
    project_secret()
    if stat.S_IMODE(WORK.stat().st_mode) != 0o700:
        raise FaultError("stays open to others")


def _foreign_folder(folder: Path) -> None:
    WORK.mkdir()
    os.chown(WORK, NOBODY, NOBODY)
    refused(work_folder, str(WORK), f"belongs to user {NOBODY}", "must be yours")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for damage, name in BAD_SECRETS.items():
        yield Case(f"secret: {name}", partial(_bad_secret, damage), "critical")
    yield Case("secret: made by eight at once, with no umask", _secret_at_once, "high")
    yield Case("secret: a folder that others may enter", _wide_folder, "critical")
    yield Case("secret: a folder of another user", _foreign_folder, "critical")
