"""How the task vectors lie to each other."""

import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.graph import paths
from tasks.report.charts import BarChart, Bars, HeatMap, Panels
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Task vectors"
QUESTION = "Do the task vectors point in different directions?"
FIGURES: tuple[str, ...] = ("task_vectors",)
FILES: tuple[str, ...] = ()


def reads(suite: "Suite") -> list[Path]:
    """Name the geometry of the first seed's task vectors."""
    return [paths.geometry(suite.name, suite.seeds[0])]


def show(suite: "Suite", root: Path) -> Content:
    """Draw cosines and lengths."""
    (file,) = reads(suite)
    found = json.loads((root / file).read_text(encoding="utf-8"))
    names, cosine, lengths = found["tasks"], np.array(found["cosine"]), found["l2_norm"]
    where = f"Seed {suite.seeds[0]}."
    return Content(
        tables=[
            Table(
                name="cosines",
                title="Cosines and lengths",
                text=f"Between each two task vectors, and each one's L2 norm. {where}",
                headings=("task",),
                columns=(*names, "length"),
                lines=[
                    Line((name,), [Cell(f"{value:.2f}") for value in (*cosine[row], lengths[row])])
                    for row, name in enumerate(names)
                ],
            )
        ],
        figures=[
            charted(
                name="task_vectors",
                title="How the task vectors lie to each other",
                text="Look for small numbers: task vectors that are nearly orthogonal can be added "
                "with little interference, and a pair with a large cosine shares what it learned. "
                f"{where}",
                alt="A matrix of the cosines between task vectors and a bar chart of their "
                "lengths; the table below has the numbers.",
                panels=_panels(names, cosine, lengths),
            )
        ],
        findings=_findings(names, cosine, lengths),
    )


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
