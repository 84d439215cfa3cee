"""DVC's view of the pipeline: the graph, and what of it is up to date."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.dvc import internals, restoring
from flows.dvc.dropped import without_dropped


@dataclass(frozen=True)
class Plan:
    """The graph in dvc.yaml, and what of it is not up to date."""

    upstream: Mapping[str, tuple[str, ...]]
    """Each stage's direct upstream stages, in an order in which the stages can run."""

    changed: Mapping[str, str]
    """The stages that are not up to date, and why."""

    forced: frozenset[str] = frozenset()
    """Those that are to run again, up to date or not."""

    @property
    def settled(self) -> set[str]:
        """Stages with nothing to do: up to date, and so is everything upstream."""
        found: set[str] = set()
        for name, above in self.upstream.items():
            due = name in self.changed or name in self.forced
            if not due and found.issuperset(above):
                found.add(name)
        return found


def plan() -> Plan:
    """Read dvc.yaml and compare it with the files there are.

    Mends first what a kill may have left behind. Raises InputError: dvc.yaml has a fault,
    a setting has one, or another DVC process is at work here.
    """
    restoring.verify()
    internals.mend()
    upstream, found = internals.read_graph()
    changes = without_dropped(found)
    return Plan(_in_order(upstream), {name: _reason(each) for name, each in changes.items()})


def _in_order(above: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """List stages after all that is upstream of them, else in the order of dvc.yaml."""
    ordered: dict[str, tuple[str, ...]] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for other in above[name]:
                add(other)
            ordered[name] = above[name]

    for name in above:
        add(name)
    return ordered


def _reason(changes: list[Any]) -> str:
    """Put DVC's findings in words: `changed deps: a.npy, b.npy and 3 more`."""
    words = []
    for change in changes:
        for kind, what in change.items() if isinstance(change, dict) else [(str(change), {})]:
            names = list(what) if isinstance(what, dict) else [str(what)]
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            words.append(f"{kind}: {', '.join(names[:2])}{more}" if names else kind)
    return "; ".join(words)
