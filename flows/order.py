"""The order of the stages of a graph: which may start now, which never can, how each ended.

A pure scheduler: it starts nothing and knows no clock. Whoever carries its order out calls start()
and block(), and end() for each stage that start() gave.
"""

from collections.abc import Collection, Mapping
from enum import Enum


class Outcome(Enum):
    """How a stage ended."""

    RAN = "ran"
    UNCHANGED = "unchanged"
    RESTORED = "restored"
    FAILED = "failed"
    UNREACHED = "not reached"
    """Failed by a network: another attempt may do. In the end it counts as failed."""
    BLOCKED = "not run"


_GOOD = (Outcome.RAN, Outcome.UNCHANGED, Outcome.RESTORED)
_BAD = (Outcome.FAILED, Outcome.BLOCKED)


class Order:
    """The stages of one pass over a graph: waiting, running, or ended with an outcome.

    `waiting` and `running` list names; `outcomes` maps the ended stages to how they ended.
    """

    def __init__(
        self,
        upstream: Mapping[str, Collection[str]],
        workers: int,
        *,
        settled: Collection[str] = (),
        on_device: Collection[str] = (),
    ) -> None:
        """Start with the `settled` stages ended, as unchanged.

        `upstream` has each stage's direct upstream stages, and lists every stage after them. At
        most `workers` stages run at a time, and at most one of those in `on_device`, which share
        one accelerator.
        """
        self._upstream, self._workers = upstream, workers
        self._on_device = frozenset(on_device)
        self.outcomes = {name: Outcome.UNCHANGED for name in upstream if name in settled}
        self.waiting = [name for name in upstream if name not in self.outcomes]
        self.running: list[str] = []

    @property
    def done(self) -> bool:
        """Whether every stage has ended."""
        return not self.waiting and not self.running

    def start(self, priorities: Mapping[str, float]) -> list[str]:
        """Move the stages that may start now to the running ones, and return them.

        Of the stages whose upstream has ended well, the highest priority first: seconds from a
        stage's start to the end of all that waits for it (Estimates.priorities).
        """
        ready = [name for name in self.waiting if self._is_ready(name)]
        started = []
        for name in sorted(ready, key=lambda name: -priorities[name]):
            if self._has_room(name):
                self.waiting.remove(name)
                self.running.append(name)
                started.append(name)
        return started

    def block(self) -> list[str]:
        """End the waiting stages below a failed one, as blocked, and return them in order.

        Each of them once all its upstream has ended.
        """
        blocked = []
        for name in list(self.waiting):
            ended = [self.outcomes.get(above) for above in self._upstream[name]]
            if None not in ended and any(outcome in _BAD for outcome in ended):
                self.waiting.remove(name)
                self.outcomes[name] = Outcome.BLOCKED
                blocked.append(name)
        return blocked

    def end(self, name: str, outcome: Outcome) -> None:
        """End a running stage."""
        self.running.remove(name)
        self.outcomes[name] = outcome

    def _is_ready(self, name: str) -> bool:
        ended = (self.outcomes.get(above) for above in self._upstream[name])
        return all(outcome in _GOOD for outcome in ended)

    def _has_room(self, name: str) -> bool:
        taken = name in self._on_device and not self._on_device.isdisjoint(self.running)
        return len(self.running) < self._workers and not taken
