"""Methods on corrupted images."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import Look, looks
from tasks.report.content import Content, Line, Table
from tasks.report.results import CORRUPTED_CSV, corrupted_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    Summary,
    best_by_column,
    cells,
    lead,
    percent,
    summarise_corrupted,
    tasks_below,
)

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Robustness"
QUESTION = "Does the lead hold when the images are corrupted?"
FIGURES: tuple[str, ...] = ()
FILES: tuple[str, ...] = (CORRUPTED_CSV,)

_Group = Mapping[str, Summary]
"""The methods under one corruption."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured under each corruption, for every seed."""
    return [
        paths.robustness(suite.name, corruption, seed)
        for corruption in suite.robustness.corruptions
        for seed in suite.seeds
    ]


def show(suite: "Suite", root: Path) -> Content:
    """Make the table by corruption and method."""
    tasks, shown_as = suite.corrupt.tasks, looks(suite.robust)
    rows = measurements.corrupted([root / path for path in reads(suite)], tasks)
    summaries = summarise_corrupted(rows)
    groups: dict[str, _Group] = {
        corruption: {key[2]: summaries[key] for key in keys}
        for corruption, keys in groupby(summaries, key=lambda key: key[0])
    }
    lines = [
        line for name, group in groups.items() for line in _lines(name, group, groups, shown_as)
    ]
    table = Table(
        name="corrupted",
        title="Corrupted images",
        text=f"Only the tasks {', '.join(tasks)} are merged here; methods that adapt do so on the "
        f"corrupted test images (severity {suite.robustness.severity} of 5) without their labels, "
        "and all are measured on them. Look at whether the distance between the rows of a "
        "corruption is as large as it is for clean images.",
        headings=("corruption", "method"),
        columns=(*tasks, AVERAGE),
        lines=lines,
        legend="Top-1 accuracy in percent. Bold is the best of a corruption.",
        swatch=1,
        emphasised_last=True,
    )
    files = {CORRUPTED_CSV: corrupted_csv(rows, tasks)}
    return Content(tables=[table], findings=_findings(groups, shown_as), files=files)


def _lines(
    corruption: str,
    group: _Group,
    groups: Mapping[str, _Group],
    shown_as: Mapping[str, Look],
) -> list[Line]:
    best = best_by_column(group, frozenset())
    beside = [summary for other in groups.values() for summary in other.values()]
    return [
        Line(
            names=(corruption.replace("_", " "), shown_as[method].label),
            cells=cells(summary, beside, {c for c, names in best.items() if method in names}),
            colour=shown_as[method].colour,
            last=method == list(group)[-1],
        )
        for method, summary in group.items()
    ]


def _findings(groups: Mapping[str, _Group], shown_as: Mapping[str, Look]) -> list[str]:
    """Hold every method against the first, under each corruption."""
    return [
        _finding(corruption, group[method], group[first], shown_as[method], shown_as[first])
        for corruption, group in groups.items()
        for first, *others in [group]
        for method in others
    ]


def _finding(corruption: str, summary: Summary, against: Summary, look: Look, other: Look) -> str:
    where = "On clean images" if corruption == "clean" else f"Under {corruption.replace('_', ' ')}"
    worse = tasks_below(summary, against)
    return (
        f"{where}, {look.label} reaches {percent(summary)}, {lead(summary, against, other.label)}"
        f"{f'; it is below on {worse}' if worse else ''}."
    )
