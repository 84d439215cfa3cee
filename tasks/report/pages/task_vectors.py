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
from tasks.report.experiments.wording import charted

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Task vectors"
QUESTION = "Do the task vectors point in different directions, and where do they conflict?"
FIGURES: tuple[str, ...] = ("task_vectors", "task_vectors_depth")
FILES: tuple[str, ...] = ()


def reads(suite: "Suite") -> list[Path]:
    """Name the geometry of the first seed's task vectors."""
    return [paths.geometry(suite.name, suite.seeds[0])]


def show(suite: "Suite", root: Path) -> Content:
    """Draw cosines, lengths over all and by depth, and conflicts of signs."""
    (file,) = reads(suite)
    found = json.loads((root / file).read_text(encoding="utf-8"))
    names, cosine, lengths = found["tasks"], np.array(found["cosine"]), found["l2_norm"]
    where = f"Seed {suite.seeds[0]}."
    conflicts = found["sign_conflicts"]
    return Content(
        tables=[
            _matrix("cosines", "Cosines and lengths", names, cosine, {"length": lengths}, where),
            _matrix("distances", "Distances", names, np.array(found["l2_distance"]), {}, where),
            _depth_table(names, found["l2_norm_by_block"], where),
            _shares_table(conflicts["any"], where),
            _conflicts_table(names, conflicts, where),
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
                panels=_panels(names, cosine, lengths),
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
                panels=_depth_panels(names, found["l2_norm_by_block"], conflicts["any"]),
            ),
        ],
        findings=[*_findings(names, cosine, lengths), *_of_conflicts(names, conflicts)],
    )


def _matrix(
    name: str,
    title: str,
    names: list[str],
    values: np.ndarray,
    more: Mapping[str, Sequence[float]],
    where: str,
) -> Table:
    text = {
        "cosines": "Between each two task vectors, and each one's L2 norm.",
        "distances": "L2 distance between each two fine-tuned models.",
    }[name]
    return Table(
        name=name,
        title=title,
        text=f"{text} {where}",
        headings=("task",),
        columns=(*names, *more),
        lines=[
            Line(
                (task,),
                [Cell(f"{v:.2f}") for v in (*values[row], *(each[row] for each in more.values()))],
            )
            for row, task in enumerate(names)
        ],
    )


def _depth_table(names: list[str], blocks: Mapping[str, Sequence[float]], where: str) -> Table:
    return Table(
        name="by_depth",
        title="Length by depth",
        text=f"L2 norm of each task vector within a block of layers, from shallow to deep. {where}",
        headings=("block",),
        columns=tuple(names),
        lines=[
            Line((block,), [Cell(f"{length:.3f}") for length in lengths])
            for block, lengths in blocks.items()
        ],
    )


def _shares_table(shares: Mapping[str, float], where: str) -> Table:
    return Table(
        name="conflicting_weights",
        title="Weights with conflicting signs",
        text="Percent of the weights at which some two of the task vectors have opposite signs: as "
        f"they are, of the largest 20 % of each, and after the election of signs. {where}",
        headings=("task vectors",),
        columns=("conflicting",),
        lines=[Line((name,), [Cell(f"{share:.1f}")]) for name, share in shares.items()],
    )


def _conflicts_table(names: list[str], conflicts: Mapping[str, Any], where: str) -> Table:
    return Table(
        name="conflicts",
        title="Conflicting signs, two by two",
        text="Percent of the weights at which two task vectors have opposite signs; and of the "
        "entries that trimming leaves of a task vector, how many the election of signs drops. "
        f"{where}",
        headings=("task",),
        columns=(*names, "dropped by the election"),
        lines=[
            Line(
                (task,),
                [Cell(f"{v:.1f}") for v in (*conflicts["pairs"][row], conflicts["dropped"][row])],
            )
            for row, task in enumerate(names)
        ],
    )


def _depth_panels(
    names: list[str], blocks: Mapping[str, Sequence[float]], shares: Mapping[str, float]
) -> Panels:
    return {
        "Length by depth": LineChart(
            x_title="block of layers, from shallow to deep",
            y_title="L2 norm",
            series=[
                Series(task, range(len(blocks)), [lengths[k] for lengths in blocks.values()])
                for k, task in enumerate(names)
            ],
            names=list(blocks),
        ),
        "Weights with conflicting signs": BarChart(
            y_title="percent of the weights",
            groups=list(shares),
            bars=[Bars("percent", list(shares.values()), colour="#777777")],
        ),
    }


def _panels(names: list[str], cosine: np.ndarray, lengths: list[float]) -> Panels:
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
            y_title="L2 norm", groups=names, bars=[Bars("L2 norm", lengths, colour="#777777")]
        ),
    }


def _findings(names: list[str], cosine: np.ndarray, lengths: list[float]) -> list[str]:
    short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
    found = [
        f"The longest task vector is that of {names[long]} ({lengths[long]:.2f}), the shortest "
        f"that of {names[short]} ({lengths[short]:.2f})."
    ]
    pairs = list(combinations(range(len(names)), 2))
    if pairs:
        first, second = max(pairs, key=lambda pair: abs(cosine[pair]))
        found.append(
            f"The cosine furthest from 0 is that between {names[first]} and {names[second]} "
            f"({cosine[first, second]:.2f})."
        )
    return found


def _of_conflicts(names: list[str], conflicts: Mapping[str, Any]) -> list[str]:
    shares, dropped = conflicts["any"], conflicts["dropped"]
    least, most = int(np.argmin(dropped)), int(np.argmax(dropped))
    return [
        f"At {shares['plain']:.1f} % of the weights some of the task vectors pull in opposite "
        f"directions; of the largest 20 % of each at {shares['trimmed']:.1f} %, and after the "
        f"election of signs at {shares['elected']:.1f} %.",
        f"For that the election drops {dropped[most]:.1f} % of what trimming leaves of "
        f"{names[most]}, the most, and {dropped[least]:.1f} % of {names[least]}, the least.",
    ]
