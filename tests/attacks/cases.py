"""What the rooms of the round share: a case, and what counts as a good end of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adamerge_core.errors import InputError

Severity = Literal["critical", "high", "medium", "low"]

SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low")
"""What a fault means: a stranger's code ran, or reached what is not its; a hang, a loss, or memory
without bounds; a wrong result without a word; a message that does not help.
"""


class FaultError(AssertionError):
    """The case did not end as it must; the message says what was seen."""


@dataclass(frozen=True)
class Case:
    """One attack or accident.

    `run` gets an empty folder, the current one of a process of its own, and raises FaultError; any
    other exception, a signal and a time-out are faults as well. It may return how many things it
    tried, where a case is many (a batch of mutations); None is one.
    """

    name: str
    run: Callable[[Path], int | None]
    severity: Severity = "medium"
    seconds: float = 60.0
    """After so long it hangs."""
    memory: int | None = 2 * 2**30
    """Bytes that its process may have beyond what it starts with; None: as many as there are."""
    mutations: bool = False
    """Whether what it tries are mutations of checkpoints or of state files."""


def refused(call: Callable[[], Any], *told: str) -> InputError:
    """Return the InputError that the call raises, whose message holds each of `told`.

    Raises FaultError if the call returns, or a text is missing; other exceptions pass, as faults.
    """
    try:
        answer = call()
    except InputError as error:
        missing = [text for text in told if text not in str(error)]
        if missing:
            raise FaultError(f"the message lacks {missing}: {error}") from error
        return error
    raise FaultError(f"was accepted: {str(answer)[:200]}")


def refuses(call: Callable[[], Any], *told: str) -> None:
    """Do as `refused`, as the whole of a case: what a case returns is a count."""
    refused(call, *told)


def said(text: str, told: Sequence[str]) -> None:
    """Raise FaultError unless what a command printed holds each of `told`, and no traceback."""
    missing = [part for part in told if part not in text]
    if missing or "Traceback" in text or "was not foreseen" in text:
        raise FaultError(f"lacks {missing}, printed:\n{text[-2000:]}")
