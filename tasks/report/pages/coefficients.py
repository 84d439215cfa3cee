"""Which layers take how much of each task vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from adamerge_core.coefficient_files import read_arrays
from adamerge_core.layers import network_order
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.catalogue import Look, looks
from tasks.report.charts import HeatMap, Level, LineChart, Panels, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted

if TYPE_CHECKING:
    from tasks.suite.methods import AdaptMethod
    from tasks.suite.schema import Suite

TITLE = "Coefficients"
QUESTION = "How much of each task vector does each layer take?"
FIGURES: tuple[str, ...] = ("coefficients",)
FILES: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerCoefficients:
    """Learned merging coefficients of a method."""

    values: np.ndarray
    """[L, K] float64; outside [0, 1] only where adaptation does not clamp."""
    layer_names: Sequence[str]
    task_names: Sequence[str]

    def block_means(self) -> dict[str, float]:
        """Average over tasks and the layers of each block, from shallow to deep."""
        order, blocks = network_order(self.layer_names)
        ordered = self.values[order]
        return {name: float(ordered[r.start : r.stop].mean()) for name, r in blocks.items()}


def reads(suite: "Suite") -> list[Path]:
    """List the learned coefficients of the first seed, under the paper's protocol."""
    return list(_files(suite, Path()).values())


def show(suite: "Suite", root: Path) -> Content:
    """Draw the coefficients by layer and task; average them by block."""
    learned = {name: LayerCoefficients(*read_arrays(p)) for name, p in _files(suite, root).items()}
    shown_as = looks(suite.merging, suite.model.is_classifier)
    labels = {name: shown_as[name].label for name in learned}
    learning = [cast("AdaptMethod", suite.merging[name]) for name in learned]
    starts = sorted({method.settings.start for method in learning})
    means = {
        name: {block: round(mean, 2) for block, mean in found.block_means().items()}
        for name, found in learned.items()
    }
    blocks = list(next(iter(means.values())))
    where = f"Paper's protocol, seed {suite.seeds[0]}."
    return Content(
        tables=[
            Table(
                name="by_block",
                title="Mean of each block of layers",
                text=f"Over the tasks and the block's layers, from shallow to deep. {where}",
                headings=("block",),
                columns=tuple(labels.values()),
                lines=[
                    Line((block,), [Cell(f"{means[name][block]:.2f}") for name in learned])
                    for block in blocks
                ],
            )
        ],
        figures=[
            charted(
                name="coefficients",
                title="Learned merging coefficients",
                text="Look for whether rows get brighter further down: in the paper, deep layers "
                "take more of each task vector than shallow ones. A layer is one parameter tensor; "
                "white lines part the network's blocks, whose means the last chart has, beside "
                f"the value that the adaptation starts with. {where}",
                alt="Heat maps of the coefficients by layer and task for "
                f"{', '.join(labels.values())}, and a line chart of their means by block, which "
                "the table below has.",
                panels=panels(learned, starts, shown_as),
            )
        ],
        findings=[_finding(labels[name], found) for name, found in means.items()],
    )


def panels(
    learned: Mapping[str, LayerCoefficients], starts: Sequence[float], looks: Mapping[str, Look]
) -> Panels:
    """Make heat maps [layers, tasks] by method, and the mean of each block of layers; `starts` are
    the coefficients' values before adaptation.
    """
    everything = np.concatenate([found.values.ravel() for found in learned.values()])
    limits = min(0.0, float(everything.min())), max(1.0, float(everything.max()))
    means = {method: found.block_means() for method, found in learned.items()}
    blocks = list(next(iter(means.values())))
    return {
        **{looks[method].label: _map(found, limits) for method, found in learned.items()},
        "Mean of each block": LineChart(
            x_title="block of layers, from shallow to deep",
            y_title="mean coefficient",
            series=[
                Series(
                    looks[method].label,
                    range(len(of_method)),
                    list(of_method.values()),
                    colour=looks[method].colour,
                )
                for method, of_method in means.items()
            ],
            names=blocks,
            levels=[Level(f"start, {start:g}", start) for start in starts],
        ),
    }


def _map(found: LayerCoefficients, limits: tuple[float, float]) -> HeatMap:
    order, blocks = network_order(found.layer_names)
    return HeatMap(
        rows=[found.layer_names[index] for index in order],
        columns=found.task_names,
        values=found.values[order].tolist(),
        scale_title="merging coefficient",
        limits=limits,
        y_title="layers, from shallow (top) to deep (bottom)",
        groups={name: len(rows) for name, rows in blocks.items()},
    )


def _files(suite: "Suite", root: Path) -> dict[str, Path]:
    return {
        name: root / paths.coefficients(suite.name, name, suite.seeds[0], PROTOCOLS[0])
        for name, method in suite.merging.items()
        if method.adapts and method.parts.adapt != "task_wise"
    }


def _finding(label: str, means: Mapping[str, float]) -> str:
    lowest, highest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[lowest] == means[highest]:
        return f"{label}: every block has the mean coefficient {means[lowest]:.2f}."
    order = list(means)
    deeper = order.index(highest) > order.index(lowest)
    return (
        f"{label}: the mean coefficient is highest in {highest} ({means[highest]:.2f}) and lowest "
        f"in {lowest} ({means[lowest]:.2f}), a {'shallower' if deeper else 'deeper'} block."
    )
