"""A page of a graph: its stages by phase, what happened to each, and a link to the run of each."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Node:
    """One stage on the page."""

    name: str
    phase: str
    """What it runs: `finetune`."""
    outcome: str
    """One of OUTCOMES."""
    page: str
    """The address of its run below that of MLflow's server; empty where none is recorded."""
    above: tuple[str, ...] = ()
    """The stages that it reads from."""
    seconds: float | None = None
    content: str = ""
    """What else is to be told of it: hashes."""

    @property
    def label(self) -> str:
        """Its name without what its phase says: `clip-mnist-0` of `finetune@clip-mnist-0`."""
        template, _, item = self.name.partition("@")
        rest = template.removeprefix(self.phase).strip("_")
        return " ".join(filter(None, [rest, item])) or self.name


def labels(nodes: Sequence[Node]) -> list[str]:
    """Shorten the labels of a phase's nodes to what tells them apart: `mnist`, `signs`."""
    found = [re.split(r"([- ])", node.label) for node in nodes]
    if found[1:]:
        first = _common(found)
        found = [each[first:] for each in found]
        last = _common([each[::-1] for each in found])
        found = [each[: len(each) - last] for each in found]
    return ["".join(each) for each in found]


def _common(parts: Sequence[Sequence[str]]) -> int:
    """Count the parts with the separators behind them that all begin with, but for a last part."""
    shortest = min(map(len, parts))
    same = next((n for n in range(shortest) if len({each[n] for each in parts}) > 1), shortest - 1)
    return same - same % 2


OUTCOMES = {
    "ran": "●",
    "cached": "○",
    "failed": "✕",
    "killed": "◐",
    "not run": "–",
    "recorded": "●",
    "not recorded": "–",
}
"""How a stage ended, each with the sign that tells it without colours; of a lineage, whether its
run is recorded."""


def html(title: str, facts: Sequence[str], nodes: Sequence[Node], root: str) -> str:
    """Write the page. facts: lines of text under the title; nodes in an order in which they can
    run; root: what leads from the page to the root of MLflow's server.
    """
    phases: dict[str, list[Node]] = {}
    for node in nodes:
        phases.setdefault(node.phase, []).append(node)
    of = {node.name: node.phase for node in nodes}
    number = {node.name: n for n, node in enumerate(nodes)}
    sources = {
        phase: list(
            dict.fromkeys(
                of[name] for node in members for name in node.above if of.get(name, phase) != phase
            )
        )
        for phase, members in phases.items()
    }
    return _template().render(
        title=title,
        facts=facts,
        phases=phases,
        sources=sources,
        labels={
            node.name: label
            for members in phases.values()
            for node, label in zip(members, labels(members), strict=True)
        },
        counts={phase: count(members) for phase, members in phases.items()},
        total=Counter(node.outcome for node in nodes),
        signs=OUTCOMES,
        number=number,
        root=root,
    )


def count(nodes: Sequence[Node]) -> str:
    """Count nodes by how they ended: `6 ran, 2 cached`."""
    found = Counter(node.outcome for node in nodes)
    return ", ".join(f"{found[name]} {name}" for name in OUTCOMES if found[name])


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("graph.html")
