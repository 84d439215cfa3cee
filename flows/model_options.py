"""What the options of the commands without a suite say: tasks, settings, device; and progress."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from adamerge_core.errors import InputError
from tasks.running.durations import clock

_EVERY = 0.2  # seconds between two writings of a line on a terminal
_EVERY_LINE = 15.0  # seconds between two lines elsewhere, as in a log


def by_task(option: str, given: Sequence[str], faults: list[str]) -> dict[str, str]:
    """Read TASK=VALUE pairs; what is wrong with them is added to `faults`."""
    return _pairs(option, given, faults, "TASK=VALUE, as mnist=path", "task ")


def settings(given: Sequence[str], faults: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs: numbers, true, false, null, JSON lists, and text."""
    found = _pairs("set", given, faults, "NAME=VALUE, as scaling=0.4")
    return {name: _value(value) for name, value in found.items()}


def choices(given: str | None, by: str | None, faults: list[str]) -> dict[str, Any]:
    """Read --choose NAME=VALUE,VALUE and --by CRITERION; empty where neither is given."""
    if given is None or by is None:
        if given is not None or by is not None:
            faults.append(
                "--choose and --by: go together, as --choose scaling=0.1,0.3 --by entropy"
            )
        return {}
    name, equals, values = given.partition("=")
    if not equals or not name or not all(values.split(",")):
        faults.append(f"--choose {given!r}: must be NAME=VALUE,VALUE, as scaling=0.1,0.3")
        return {}
    return {name: [_value(value) for value in values.split(",")], "by": by}


def _pairs(
    option: str, given: Sequence[str], faults: list[str], form: str, what: str = ""
) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            faults.append(f"--{option} {text!r}: must be {form}")
        elif name in found:
            faults.append(f"--{option} {text!r}: {what}{name} stands twice; give it once")
        else:
            found[name] = value
    return found


def _value(text: str) -> Any:
    for read in (int, float, json.loads):
        try:
            return read(text)
        except (ValueError, RecursionError):
            continue
    return text


def device(name: str, threads: int | None, faults: list[str]) -> str:
    """Choose the device to compute on, cuda where there is one, else cpu; set the threads."""
    import torch

    if threads is not None and threads < 1:
        faults.append(f"--threads {threads}: must be at least 1")
    elif threads is not None:
        torch.set_num_threads(threads)
    if name not in ("auto", "cpu", "cuda"):
        faults.append(f"--device {name!r}: must be auto, cpu or cuda")
    elif name == "cuda" and not torch.cuda.is_available():
        faults.append("--device cuda: no CUDA device is here; give cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def refuse(command: str, faults: list[str]) -> None:
    """Raise one InputError that lists the faults, if there are any."""
    if faults:
        raise InputError.listing(f"adamerge {command}", faults, shown=30)


class Progress:
    """Shows how far each part of the work is and how long it will take, on one line a part."""

    def __init__(self) -> None:
        self._part = ""
        self._began = self._told = 0.0
        self._first = 0

    def __call__(self, done: int, total: int, what: str) -> None:
        """Tell of a part of the work, `what` up to a comma naming it."""
        now, part = time.monotonic(), what.split(",")[0]
        if part != self._part or done < self._first:
            self._part, self._began, self._first, self._told = part, now, done, now
        terminal = sys.stdout.isatty()
        if done < total and now - self._told < (_EVERY if terminal else _EVERY_LINE):
            return
        self._told = now
        steps, took = done - self._first, now - self._began
        left = f", {clock(took / steps * (total - done))} left" if steps and done < total else ""
        text = f"{done} of {total} {what}{left}"
        if terminal:
            print(f"\r\x1b[K{text}", end="\n" if done >= total else "", flush=True)
        else:
            print(text, flush=True)
