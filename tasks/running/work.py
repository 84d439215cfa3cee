"""What a stage's run() is given, and how it tells how far it is."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from adamerge_core.errors import InputError
from tasks.suite.fields import Section

AnySection = TypeVar("AnySection", bound=Section)


class Reporter(Protocol):
    """Where a stage's work tells how far it is."""

    @property
    def scratch(self) -> Path | None:
        """A folder for state to resume from after a kill; None where nothing is to be kept."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Tell that `done` of `total` steps are done; `text` is shown beside."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each named curve."""


class PlainReporter:
    """A Reporter with nothing around it: prints progress, drops metrics."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._started: tuple[float, int] | None = None
        self._printed = 0.0

    @property
    def scratch(self) -> Path | None:
        return self._scratch

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Print at most one line a second, and always the last: `120/200  8.3/s  10 s left
        text`.
        """
        now = time.monotonic()
        if self._started is None or done < self._started[1]:
            # a resumed stage starts at a later step: what came before is no part of the rate
            self._started = (now, done)
        if done < total and now - self._printed < 1.0:
            return
        self._printed = now
        since, first = self._started
        rate = (done - first) / (now - since) if now > since else 0.0
        parts = [f"{done}/{total}"]
        if rate:
            parts.append(f"{rate:.3g}/s")
            parts.append(f"{(total - done) / rate:.0f} s left")
        print("  ".join([*parts, text]).rstrip(), flush=True)
        if done >= total:
            self._started = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        pass


class Options(dict[str, str]):
    """The options of a stage's command: one that it lacks is a fault of dvc.yaml."""

    def __missing__(self, key: str) -> str:
        raise InputError(
            f"the command has no option --{key}, which the stage needs; "
            "write dvc.yaml anew: adamerge suite use"
        )


@dataclass(frozen=True)
class Work:
    """One stage's work: all that its run() may know."""

    name: str
    """As dvc.yaml has it: `finetune@mini_clip-mnist-0`."""
    options: Mapping[str, str]
    """Of its command, `--key value` each."""
    params: Mapping[str, Any]
    """Nested; only the keys of params.yaml that the stage depends on."""
    deps: tuple[str, ...] = ()
    """The files that it depends on."""
    report: Reporter = field(default_factory=PlainReporter)

    @property
    def seed(self) -> int:
        return int(self.options["seed"])

    def section(self, kind: type[AnySection]) -> AnySection:
        """Read a section of the parameters, all of which the stage must depend on."""
        return kind.of(self.params)
