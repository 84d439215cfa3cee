"""How the task vectors lie to each other."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.graph import paths
from tasks.report.charts import BarChart, Bars, HeatMap, LineChart, Panels, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, heights, seeds_of
from tasks.report.rows import AVERAGE
from tasks.report.summaries import NOT_SHOWN, PERCENT, Scale, Summary, cell, is_shown, percent

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Task vectors"
QUESTION = "Do the task vectors point in different directions, and where do they conflict?"
FIGURES: tuple[str, ...] = ("task_vectors", "task_vectors_depth")
FILES: tuple[str, ...] = ()

_PLAIN, _FINE = Scale(2, "", ""), Scale(3, "", "")

_Seeds = Sequence[Mapping[str, Any]]
"""The geometry of the task vectors, a seed each."""

_Rows = Mapping[str, Summary]
"""By task or block, over the seeds: a value a task."""


def reads(suite: "Suite") -> list[Path]:
    """Name the geometry of every seed's task vectors."""
    return [paths.geometry(suite.name, seed) for seed in suite.seeds]


def show(suite: "Suite", root: Path) -> Content:
    """Draw cosines, lengths over all and by depth, and conflicts of signs."""
    seeds = [json.loads((root / file).read_text(encoding="utf-8")) for file in reads(suite)]
    names = seeds[0]["tasks"]
    cosines, lengths = _matrix(seeds, names, "cosine"), _by_task(names, seeds, "l2_norm")
    blocks = {
        block: _by_task(names, [seed["l2_norm_by_block"] for seed in seeds], block)
        for block in seeds[0]["l2_norm_by_block"]
    }
    conflicts = [seed["sign_conflicts"] for seed in seeds]
    shares = Summary.of([each["any"] for each in conflicts])
    dropped = _by_task(names, conflicts, "dropped")
    where = seeds_of(suite)
    return Content(
        tables=[
            _square_table(
                "cosines",
                "Cosines and lengths",
                f"Between each two task vectors, and each one's L2 norm. {where}",
                _matrix(seeds, names, "cosine", {"length": "l2_norm"}),
                _PLAIN,
            ),
            _square_table(
                "distances",
                "Distances",
                f"L2 distance between each two fine-tuned models. {where}",
                _matrix(seeds, names, "l2_distance"),
                _PLAIN,
            ),
            _depth_table(blocks, where),
            _shares_table(shares, where),
            _square_table(
                "conflicts",
                "Conflicting signs, two by two",
                "Percent of the weights at which two task vectors have opposite signs; and of the "
                "entries that trimming leaves of a task vector, how many the election of signs "
                f"drops. {where}",
                _matrix(conflicts, names, "pairs", {"dropped by the election": "dropped"}),
                PERCENT,
            ),
        ],
        figures=[
            charted(
                name=FIGURES[0],
                title="How the task vectors lie to each other",
                text="Look for small numbers: task vectors that are nearly orthogonal can be added "
                "with little interference, and a pair with a large cosine shares what it learned. "
                f"{where}",
                alt="A matrix of the cosines between task vectors and a bar chart of their "
                "lengths; the first table below has the numbers.",
                panels=_panels(cosines, lengths),
            ),
            charted(
                name=FIGURES[1],
                title="Where they are long, and where their signs conflict",
                text="On the left, the length of each task vector within each block of layers: "
                "where a line is high, fine-tuning moved the block far. On the right, the share of "
                "weights at which two task vectors or more pull in opposite directions: as they "
                "are, of the largest 20 % of each (trimmed), and of what Ties-Merging leaves after "
                f"the election of signs. {where}",
                alt="A line chart of the lengths by block, a line a task, and a bar chart of the "
                "percent of weights with conflicting signs; the tables below have the numbers.",
                panels=_depth_panels(blocks, shares),
            ),
        ],
        findings=[*_findings(cosines, lengths), *_of_conflicts(shares, dropped)],
    )


def _named(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return dict(zip(names, values, strict=True))


def _by_task(names: Sequence[str], seeds: _Seeds, key: str) -> Summary:
    return Summary.of([_named(names, seed[key]) for seed in seeds])


def _matrix(
    seeds: _Seeds, names: Sequence[str], key: str, beside: Mapping[str, str] | None = None
) -> _Rows:
    """Summarise a matrix [tasks, tasks] row by row; `beside` names columns after it, and what they
    have for each task.
    """
    return {
        task: Summary.of(
            [
                _named(names, seed[key][row])
                | {column: seed[other][row] for column, other in (beside or {}).items()}
                for seed in seeds
            ]
        )
        for row, task in enumerate(names)
    }


def _cells(row: Summary, scale: Scale) -> list[Cell]:
    return [cell(row, column, scale) for column in row.mean]


def _square_table(name: str, title: str, text: str, rows: _Rows, scale: Scale) -> Table:
    return Table(
        name=name,
        title=title,
        text=text,
        headings=("task",),
        columns=tuple(next(iter(rows.values())).mean),
        lines=[Line((task,), _cells(row, scale)) for task, row in rows.items()],
    )


def _depth_table(blocks: _Rows, where: str) -> Table:
    return Table(
        name="by_depth",
        title="Length by depth",
        text=f"L2 norm of each task vector within a block of layers, from shallow to deep. {where}",
        headings=("block",),
        columns=tuple(next(iter(blocks.values())).mean),
        lines=[Line((block,), _cells(row, _FINE)) for block, row in blocks.items()],
    )


def _shares_table(shares: Summary, where: str) -> Table:
    return Table(
        name="conflicting_weights",
        title="Weights with conflicting signs",
        text="Percent of the weights at which some two of the task vectors have opposite signs: as "
        f"they are, of the largest 20 % of each, and after the election of signs. {where}",
        headings=("task vectors",),
        columns=("conflicting",),
        lines=[Line((name,), [cell(shares, name)]) for name in shares.mean],
    )


def _depth_panels(blocks: _Rows, shares: Summary) -> Panels:
    tasks = next(iter(blocks.values())).mean
    return {
        "Length by depth": LineChart(
            x_title="block of layers, from shallow to deep",
            y_title="L2 norm",
            series=[
                Series(task, range(len(blocks)), *heights(blocks.values(), task)) for task in tasks
            ],
            names=list(blocks),
        ),
        "Weights with conflicting signs": BarChart(
            y_title="percent of the weights",
            groups=list(shares.mean),
            bars=[Bars("percent", *_columns(shares), colour="#777777")],
        ),
    }


def _columns(row: Summary) -> tuple[list[float], list[float]]:
    """Give a summary's means and their spreads, none for a single seed."""
    return list(row.mean.values()), list((row.deviation or {}).values())


def _panels(cosines: _Rows, lengths: Summary) -> Panels:
    names = list(cosines)
    cosine = np.array([list(row.mean.values()) for row in cosines.values()])
    between = np.where(np.eye(len(names), dtype=bool), np.nan, cosine)
    limit = max(0.05, float(np.nanmax(np.abs(between), initial=0)))
    return {
        "Cosine between task vectors": HeatMap(
            rows=names,
            columns=names,
            values=between.tolist(),
            scale_title="cosine",
            limits=(-limit, limit),
            diverging=True,
        ),
        "Length of each task vector": BarChart(
            y_title="L2 norm",
            groups=names,
            bars=[Bars("L2 norm", *_columns(lengths), colour="#777777")],
        ),
    }


def _findings(cosines: _Rows, lengths: Summary) -> list[str]:
    least, most = _ends(lengths)
    found = [
        f"The longest task vector is that of {most} ({percent(lengths, most, _PLAIN)}), the "
        f"shortest that of {least} ({percent(lengths, least, _PLAIN)})"
        f"{_within(lengths, least, most, _PLAIN)}."
    ]
    pairs = list(combinations(cosines, 2))
    if pairs:
        first, second = max(pairs, key=lambda pair: abs(cosines[pair[0]].mean[pair[1]]))
        found.append(
            f"The cosine furthest from 0 is that between {first} and {second} "
            f"({percent(cosines[first], second, _PLAIN)})."
        )
    return found


def _of_conflicts(shares: Summary, dropped: Summary) -> list[str]:
    least, most = _ends(dropped)
    return [
        f"At {percent(shares, 'plain')} of the weights some of the task vectors pull in opposite "
        f"directions; of the largest 20 % of each at {percent(shares, 'trimmed')}, and after the "
        f"election of signs at {percent(shares, 'elected')}.",
        f"For that the election drops {percent(dropped, most)} of what trimming leaves of {most}, "
        f"the most, and {percent(dropped, least)} of {least}, the least"
        f"{_within(dropped, least, most, PERCENT)}.",
    ]


def _ends(values: Summary) -> tuple[str, str]:
    """Name the columns with the lowest and the highest mean."""
    means = values.mean
    return min(means, key=means.__getitem__), max(means, key=means.__getitem__)


def _within(values: Summary, least: str, most: str, scale: Scale) -> str:
    """Say where the spread over seeds of two columns is not smaller than their difference."""
    apart = is_shown(_alone(values, most), _alone(values, least), scale=scale)
    return "" if apart else f", {NOT_SHOWN}"


def _alone(values: Summary, column: str) -> Summary:
    """Take a column as what summaries are compared by."""
    spread = values.deviation
    return Summary({AVERAGE: values.mean[column]}, spread and {AVERAGE: spread[column]})
