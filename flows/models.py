"""`adamerge models`: the versions of a suite's registered model, and a person's decisions."""

import getpass
import html
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adamerge_core.errors import InputError
from tasks.graph import params_yaml
from tasks.tracking import ingest

if TYPE_CHECKING:
    from tasks.tracking.registry.registered_model import Decision, ModelRegistry
    from tasks.tracking.registry.versions import Version

_MOMENT = "%Y-%m-%d %H:%M"


def list_all(suite: str | None, *, as_json: bool) -> int:
    """Print the versions, the latest first."""
    with _registry(suite) as registry:
        found = registry.versions()
    if as_json:
        print(json.dumps([_facts(each) for each in found], indent=2))
        return 0
    if not found:
        print(f"{registry.name} has no version yet: `adamerge run` makes one")
        return 0
    head = ("version", "aliases", "method", "seed", "held-out", "made", "by run")
    print(f"{registry.name}, held-out top-1 in percent\n")
    rows = [_row(each) for each in found]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(_line(head, widths))
    for row, version in zip(rows, found, strict=True):
        print(_line(row, widths))
        print(f"  {version.reason}")
    return 0


def _row(version: "Version") -> tuple[str, ...]:
    from tasks.tracking.registry.versions import AVERAGE, METHOD

    return (
        version.number,
        ", ".join(sorted(version.aliases)) or "-",
        version.tags.get(METHOD, ""),
        str(version.details.seed),
        version.tags.get(AVERAGE, ""),
        _moment(version),
        version.details.run_name,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(c.ljust(width) for c, width in zip(cells, widths, strict=True)).rstrip()


def _moment(version: "Version") -> str:
    return datetime.fromtimestamp(version.created_ms / 1000).strftime(_MOMENT)


def _facts(version: "Version") -> dict[str, Any]:
    from tasks.tracking.registry.versions import MD5, METHOD, PATH

    return {
        "version": version.number,
        "aliases": sorted(version.aliases),
        "method": version.tags.get(METHOD, ""),
        **asdict(version.details),
        "path": version.tags.get(PATH, ""),
        "md5": version.tags.get(MD5, ""),
        "created_ms": version.created_ms,
        "reason": version.reason,
    }


def show(suite: str | None, number: str) -> int:
    """Print what the registry's page says of a version."""
    with _registry(suite) as registry:
        version = registry.version(number)
    print(f"{registry.name}, version {number}, made {_moment(version)}")
    print(f"aliases: {', '.join(sorted(version.aliases)) or 'none'}\n")
    print(html.unescape(version.description))
    return 0


def promote(suite: str | None, number: str, why: str) -> int:
    """Make a version champion."""
    decision = _decision(why)
    with _registry(suite) as registry:
        version = registry.promote(number, decision)
    print(f"version {version.number} of {registry.name} is the champion")
    return 0


def roll_back(suite: str | None, why: str) -> int:
    """Bring the champion before the present one back."""
    decision = _decision(why)
    with _registry(suite) as registry:
        version = registry.roll_back(decision)
    print(f"version {version.number} of {registry.name} is the champion again")
    return 0


def _decision(why: str) -> "Decision":
    from tasks.tracking.registry.registered_model import Decision

    text = " ".join(why.split())
    if not text or len(text) > _LONGEST:
        raise InputError(f"--why {why[:60]!r}: must be 1 to {_LONGEST} characters; say the reason")
    return Decision(_user(), datetime.now().strftime(_MOMENT), text)


_LONGEST = 300


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"user {os.geteuid()}"


@contextmanager
def _registry(suite: str | None) -> "Iterator[ModelRegistry]":
    """Open the registered model of a suite, with all that waits for MLflow in it; nothing else
    changes it meanwhile.
    """
    from tasks.tracking.registry.registered_model import ModelRegistry
    from tasks.tracking.runs import explained
    from tasks.tracking.store import Store

    ingest.ingest()
    with ingest.journals_held(), explained():
        yield ModelRegistry(Store(), suite or params_yaml.suite_name())
