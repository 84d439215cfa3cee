"""Notifications: a command of the user's, given what happened."""

import os
import shlex
import subprocess

from adamerge_core.errors import InputError

NOTIFY = "ADAMERGE_NOTIFY"
"""The variable with the command, for this process and those that it starts."""

_SECONDS = 60.0


def check(command: str) -> str:
    """Check a command of the user's, and return it. Raises InputError where it is none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"the command to notify with, {command!r}: {error}") from error
    if not words:
        raise InputError("the command to notify with is empty; give one, or leave it out")
    return command


def notify(event: str, suite: str, message: str, page: str) -> str | None:
    """Run the user's command, if there is one; return what went wrong with it, if anything.

    event: `failed` or `fell`. The command has the message on its standard input, and the rest in
    ADAMERGE_EVENT, ADAMERGE_SUITE and ADAMERGE_PAGE.
    """
    command = os.environ.get(NOTIFY)
    if not command:
        return None
    facts = {"ADAMERGE_EVENT": event, "ADAMERGE_SUITE": suite, "ADAMERGE_PAGE": page}
    try:
        done = subprocess.run(
            shlex.split(command),
            input=message,
            env={**os.environ, **facts},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError) as error:
        return f"notifying failed: {command}: {error}"
    except subprocess.TimeoutExpired:
        return f"notifying failed: {command}: no end within {_SECONDS:.0f} s"
    if done.returncode:
        return f"notifying failed: {command} ended with {done.returncode}: {done.stdout[-500:]}"
    return None
