"""Where adapting on corrupted images misleads, and what goes with it that needs no label.

A place is a task under a corruption at a severity.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, cast

import numpy as np

from adamerge_core.rank_correlation import spearman
from tasks.report import measurements
from tasks.report.charts import LineChart, Series
from tasks.report.content import Cell, Line, Table
from tasks.shared.long_tables import ACCURACY, AGREEMENT, ENTROPY, EVENNESS

if TYPE_CHECKING:
    from tasks.suite.experiments.corruptions import Corruptions
    from tasks.suite.schema import Suite

CLEAN, CORRUPTED = "clean", "corrupted"

_MISLED = 5.0
"""Points below the first method from which on a method counts as misled."""
_WORST = 12
"""Rows of the table of those misled the most, at most."""
SIGNS = {AGREEMENT: "agreement with the experts", EVENNESS: "evenness", ENTROPY: "entropy"}


@dataclass(frozen=True)
class Variant:
    """A method, and which images it adapts on."""

    method: str
    adapted_on: str
    label: str
    colour: str | None
    adapts: bool

    def setting(self, corruption: str, severity: int) -> str:
        return f"{corruption}/{severity}/{self.adapted_on}"


@dataclass(frozen=True)
class Place:
    """A task under a corruption at a severity: what changed from the first method to another."""

    corruption: str
    severity: int
    task: str
    change: Mapping[str, float]
    """By metric, mean over seeds."""


def severities_of(suite: "Suite") -> tuple[int, ...]:
    """List the severities at which a suite with this experiment is measured."""
    settings = cast("Corruptions", suite.studied["corruptions"])
    return settings.measured(suite.corrupt.severities)


def held_against(
    suite: "Suite",
    found: Mapping[str, measurements.Measured],
    first: Variant,
    variant: Variant,
) -> list[Place]:
    """Hold a variant against the first, place by place."""

    def mean(metric: str, each: Variant, corruption: str, severity: int, task: str) -> float:
        seeds = found[metric][each.setting(corruption, severity), each.method]
        return fmean(seed[task] for seed in seeds)

    return [
        Place(
            corruption,
            severity,
            task,
            {
                metric: round(mean(metric, variant, *at) - mean(metric, first, *at), 2)
                for metric in found
                for at in [(corruption, severity, task)]
            },
        )
        for corruption in suite.corrupt.corruptions
        for severity in severities_of(suite)
        for task in suite.corrupt.tasks
    ]


def misled_table(places: Mapping[str, Sequence[Place]], first: str) -> list[Table]:
    """List the places furthest below the first method; no table where there are none."""
    below = (
        (p.change[ACCURACY], label, p)
        for label, each in places.items()
        for p in each
        if p.change[ACCURACY] < 0
    )
    misled = sorted(below, key=lambda row: row[0])[:_WORST]
    if not misled:
        return []
    return [
        Table(
            name="misled",
            title=f"Furthest below {first}",
            text=f"The {len(misled)} places, each a task under a corruption, at which a method "
            f"that adapts lies the furthest below {first}: by how many points, and by how much "
            "measures that need no label differ. Look at whether predictions agree less with the "
            "experts, or name fewer classes, while their entropy falls as it does everywhere.",
            headings=("method", "corruption", "task"),
            columns=("accuracy", *SIGNS.values()),
            lines=[
                Line(
                    (label, f"{words(p.corruption)}, severity {p.severity}", p.task),
                    [Cell(_signed(p.change[metric], metric)) for metric in (ACCURACY, *SIGNS)],
                )
                for _, label, p in misled
            ],
            legend="Accuracy and agreement in points, evenness from 0 to 1, entropy in nats.",
        )
    ]


def _guarded(places: Mapping[str, Sequence[Place]]) -> dict[str, tuple[float, float]]:
    """Average each variant's change in accuracy where the first of them is misled, and elsewhere;
    empty where it is misled nowhere or everywhere.
    """
    first = next(iter(places.values()), [])
    misled = [p.change[ACCURACY] <= -_MISLED for p in first]
    if len(set(misled)) < 2:
        return {}
    return {
        label: (
            fmean(p.change[ACCURACY] for p, is_so in zip(each, misled, strict=True) if is_so),
            fmean(p.change[ACCURACY] for p, is_so in zip(each, misled, strict=True) if not is_so),
        )
        for label, each in places.items()
    }


def guards_table(places: Mapping[str, Sequence[Place]], first: str) -> list[Table]:
    found = _guarded(places)
    if not found:
        return []
    return [
        Table(
            name="guards",
            title=f"Where {next(iter(places))}, misleads",
            text=f"Average distance from {first} at the places where it lies {_MISLED:g} points or "
            "more below, and at all others. A method that guards against it is near 0 in the first "
            "column and no worse in the second.",
            headings=("method",),
            columns=("there", "elsewhere"),
            lines=[
                Line((label,), [Cell(f"{value:+.1f}") for value in values])
                for label, values in found.items()
            ],
            legend="Points of top-1 accuracy.",
        )
    ]


def signs_table(places: Mapping[str, Sequence[Place]]) -> Table:
    return Table(
        name="signs",
        title="What goes with the change in accuracy",
        text="Spearman's rank correlation over the places of the change in accuracy and of the "
        "change in each measure that needs no label. 1: the measure orders the places as the "
        "accuracy does; 0: it says nothing.",
        headings=("method",),
        columns=tuple(SIGNS.values()),
        lines=[
            Line((label,), [Cell(f"{_correlation(each, sign):.2f}") for sign in SIGNS])
            for label, each in places.items()
        ],
    )


def scatter(
    places: Mapping[str, Sequence[Place]], sign: str, variants: Sequence[Variant]
) -> LineChart:
    colours = {each.label: each.colour for each in variants}
    return LineChart(
        x_title=f"change in {SIGNS[sign]}",
        y_title="change in accuracy (points)",
        series=[
            Series(
                label,
                [p.change[sign] for p in each],
                [p.change[ACCURACY] for p in each],
                colour=colours[label],
                line="none",
            )
            for label, each in places.items()
        ],
    )


def of_misled(places: Mapping[str, Sequence[Place]], first: str) -> list[str]:
    """Count the places where each variant is misled, and say where they are."""
    sentences = []
    for label, each in places.items():
        misled = [p for p in each if p.change[ACCURACY] <= -_MISLED]
        text = (
            f"{label}, lies {_MISLED:g} points or more below {first} at {len(misled)} of "
            f"{len(each)} places"
        )
        if misled:
            task, on_task = _most(misled, lambda p: p.task)
            corruption, under = _most(misled, lambda p: p.corruption)
            worst = min(misled, key=lambda p: p.change[ACCURACY])
            text += (
                f", {on_task} of them on {task} and {under} under {words(corruption)}; the "
                f"furthest, by {-worst.change[ACCURACY]:.1f} points, on {worst.task} under "
                f"{words(worst.corruption)} of severity {worst.severity}"
            )
        sentences.append(f"{text}.")
    return sentences


def of_guards(places: Mapping[str, Sequence[Place]], first: str) -> list[str]:
    """Say what the other variants do where the first that adapts is misled, and elsewhere."""
    (name, (there, elsewhere)), *others = list(_guarded(places).items()) or [("", (0.0, 0.0))]
    return [
        f"Where {name}, misleads, it lies {there:+.1f} points from {first} on average and {label}, "
        f"{found[0]:+.1f}; elsewhere {elsewhere:+.1f} and {found[1]:+.1f}."
        for label, found in others
    ]


def _most(places: Sequence[Place], key: Callable[[Place], str]) -> tuple[str, int]:
    return Counter(map(key, places)).most_common(1)[0]


def of_signs(places: Mapping[str, Sequence[Place]]) -> list[str]:
    """Say which measure without labels goes with the change in accuracy."""
    sentences = []
    for label, each in places.items():
        found = {sign: _correlation(each, sign) for sign in SIGNS}
        told = ", ".join(f"{name} {found[sign]:.2f}" for sign, name in SIGNS.items())
        best = max(found, key=lambda sign: abs(found[sign]))
        sentences.append(
            f"Of {label}, the change in accuracy goes with the change in a measure that needs no "
            f"label by a rank correlation of: {told}; {SIGNS[best]} tells the most."
        )
    return sentences


def _correlation(places: Sequence[Place], sign: str) -> float:
    accuracy = np.array([p.change[ACCURACY] for p in places])
    return spearman(accuracy, np.array([p.change[sign] for p in places]))


def _signed(value: float, metric: str) -> str:
    return f"{value:+.1f}" if metric in (ACCURACY, AGREEMENT) else f"{value:+.2f}"


def words(corruption: str) -> str:
    return corruption.replace("_", " ")
