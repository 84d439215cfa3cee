"""One flow, or whatever else must not meet one, at a time in a project."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from adamerge_core.errors import InputError
from tasks.running.environment import RUN_LOCK, work_folder


@contextmanager
def alone() -> Iterator[None]:
    """Raise InputError while another flow is at work in this project."""
    work_folder()
    with RUN_LOCK.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another `adamerge run` is at work in this project (process {file.read()}): "
                "let it end, or end it, then run this again"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
