"""The project's secret: what Prefect's and MLflow's servers ask for; for its owner alone."""

import os
import re
import secrets
import stat
from contextlib import suppress

from adamerge_core.errors import InputError
from tasks.running.environment import WORK, work_folder

SECRET = WORK / "secret"

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{43,200}")


def project_secret() -> str:
    """Return the secret of the project in the current folder; make it at the first use.

    Raises InputError where another user may know it, or have chosen it: the file is a link, is not
    this user's, is open to others, or holds what is no secret of ours.
    """
    work_folder()
    try:
        return _read()
    except FileNotFoundError:
        _make()
        return _read()


def _make() -> None:
    """Write a new secret, whole or not at all; if another process was first, its one stays."""
    temporary = WORK / f"secret.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")  # 43 characters
        with suppress(FileExistsError):
            os.link(temporary, SECRET)
    finally:
        temporary.unlink()


def _read() -> str:
    try:
        descriptor = os.open(SECRET, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unfit(f"cannot be opened ({error.strerror})") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _unfit("is no regular file")
        text = os.read(descriptor, 1000).decode("ascii", errors="replace").strip()
    finally:
        os.close(descriptor)
    if about.st_uid != os.geteuid():
        raise _unfit(f"belongs to user {about.st_uid}, and you are user {os.geteuid()}")
    if about.st_mode & 0o077:
        raise _unfit(f"has mode {stat.S_IMODE(about.st_mode):04o}: others may have read it")
    if not _WELL_FORMED.fullmatch(text):
        raise _unfit("does not hold what adamerge wrote there")
    return text


def _unfit(why: str) -> InputError:
    return InputError(
        f"{SECRET} {why}; it must be a file that you own, readable by you alone: end `adamerge ui` "
        f"and `adamerge schedule`, then `rm -r {SECRET}`, and a new one is made"
    )
