"""Which layers take how much of each task vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, cast

import numpy as np

from adamerge_core.coefficient_files import read_arrays
from adamerge_core.layers import layer_kind, network_order
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.catalogue import Look, looks
from tasks.report.charts import HeatMap, Level, LineChart, Panels, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, seeds_of
from tasks.report.measurements import curve

if TYPE_CHECKING:
    from tasks.suite.methods import AdaptMethod
    from tasks.suite.schema import Suite

TITLE = "Coefficients"
QUESTION = "How much of each task vector does each layer take, and do seeds agree on it?"
FIGURES: tuple[str, ...] = ("coefficients", "coefficients_learned")
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

    def kind_means(self) -> dict[str, float]:
        """Average over tasks and the layers of each kind, in the order in which they come first."""
        order, _ = network_order(self.layer_names)
        rows: dict[str, list[int]] = {}
        for index in order:
            rows.setdefault(layer_kind(self.layer_names[index]), []).append(index)
        return {kind: float(self.values[indices].mean()) for kind, indices in rows.items()}


def reads(suite: "Suite") -> list[Path]:
    """List the learned coefficients of every seed, under the paper's protocol, and how those of the
    first seed were learned.
    """
    return [
        path
        for name in _learning(suite)
        for path in (*_files(suite, name), _trajectory(suite, name))
    ]


def show(suite: "Suite", root: Path) -> Content:
    """Draw the coefficients by layer and task and along the adaptation; average them by block and
    by kind of layer; compare seeds.
    """
    seeds = {
        name: [LayerCoefficients(*read_arrays(root / path)) for path in _files(suite, name)]
        for name in _learning(suite)
    }
    learned = {name: found[0] for name, found in seeds.items()}
    shown_as = looks(suite.merging, suite.model.is_classifier)
    labels = {name: shown_as[name].label for name in learned}
    starts = sorted({method.settings.start for method in _learning(suite).values()})
    where = f"Paper's protocol, seed {suite.seeds[0]}."
    blocks = {name: [each.block_means() for each in found] for name, found in seeds.items()}
    kinds = {name: [each.kind_means() for each in found] for name, found in seeds.items()}
    agreements = {name: agreement(found) for name, found in seeds.items()}
    return Content(
        tables=[
            _means_table(suite, "by_block", "Mean of each block of layers", blocks, labels),
            _means_table(suite, "by_kind", "Mean of each kind of layer", kinds, labels),
            *_agreement_table(suite, agreements, labels),
        ],
        figures=[
            charted(
                name=FIGURES[0],
                title="Learned merging coefficients",
                text="Look for whether rows get brighter further down: in the paper, deep layers "
                "take more of each task vector than shallow ones. A layer is one parameter tensor; "
                "white lines part the network's blocks, whose means the last chart has, beside "
                f"the value that the adaptation starts with. {where}",
                alt="Heat maps of the coefficients by layer and task for "
                f"{', '.join(labels.values())}, and a line chart of their means by block, which "
                "the first table below has.",
                panels=panels(learned, starts, shown_as),
            ),
            charted(
                name=FIGURES[1],
                title="How the coefficients were learned",
                text="The mean over the layers of each task's coefficients after every step. Lines "
                "that still rise or fall at the end say that more steps would move them further. "
                f"{where}",
                alt="A line chart a method of the mean coefficient of each task over the steps.",
                panels={labels[name]: _evolution(suite, root, name) for name in learned},
            ),
        ],
        findings=[
            *(_of_blocks(labels[name], found) for name, found in blocks.items()),
            *(_of_seeds(labels[name], found) for name, found in agreements.items() if found),
        ],
    )


def agreement(seeds: Sequence[LayerCoefficients]) -> tuple[float, float] | None:
    """Compare the coefficients of seeds, two by two: the mean of their Pearson correlations, and
    of their mean absolute differences; None for a single seed.
    """
    pairs = list(combinations((each.values.ravel() for each in seeds), 2))
    if not pairs:
        return None
    correlations = [_correlation(one, other) for one, other in pairs]
    return fmean(correlations), fmean(float(np.abs(a - b).mean()) for a, b in pairs)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 where either is the same everywhere."""
    if not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _means_table(
    suite: "Suite",
    name: str,
    title: str,
    means: Mapping[str, Sequence[Mapping[str, float]]],
    labels: Mapping[str, str],
) -> Table:
    rows = list(next(iter(means.values()))[0])
    what = {"by_block": "block, from shallow to deep", "by_kind": "kind of layer"}[name]
    return Table(
        name=name,
        title=title,
        text=f"Over the tasks and all layers of a {what}. Paper's protocol. {seeds_of(suite)}",
        headings=(what.split(",")[0],),
        columns=tuple(labels.values()),
        lines=[
            Line((row,), [_mean_cell([seed[row] for seed in means[m]]) for m in labels])
            for row in rows
        ],
    )


def _mean_cell(values: Sequence[float]) -> Cell:
    return Cell(f"{fmean(values):.2f}", f"{stdev(values):.2f}" if len(values) > 1 else None)


def _agreement_table(
    suite: "Suite",
    agreements: Mapping[str, tuple[float, float] | None],
    labels: Mapping[str, str],
) -> list[Table]:
    lines = [
        Line((labels[name],), [Cell(f"{found[0]:.2f}"), Cell(f"{found[1]:.3f}")])
        for name, found in agreements.items()
        if found
    ]
    if not lines:
        return []
    return [
        Table(
            name="agreement",
            title="Agreement over seeds",
            text="Coefficients of the same layer and task in every two of the seeds "
            f"{', '.join(map(str, suite.seeds))}, whose fine-tuned models differ too: Pearson's "
            "correlation over layers and tasks, and the mean absolute difference.",
            headings=("method",),
            columns=("correlation", "difference"),
            lines=lines,
        )
    ]


def _evolution(suite: "Suite", root: Path, name: str) -> LineChart:
    columns = curve(root / _trajectory(suite, name))
    return LineChart(
        x_title="adaptation step",
        y_title="mean coefficient",
        series=[Series(n, columns["step"], columns[f"mean_coefficient_{n}"]) for n in suite.tasks],
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


def _learning(suite: "Suite") -> dict[str, "AdaptMethod"]:
    """Pick the methods that learn a coefficient a layer."""
    return {
        name: cast("AdaptMethod", method)
        for name, method in suite.merging.items()
        if method.adapts and method.parts.adapt != "task_wise"
    }


def _files(suite: "Suite", name: str) -> list[Path]:
    return [paths.coefficients(suite.name, name, seed, PROTOCOLS[0]) for seed in suite.seeds]


def _trajectory(suite: "Suite", name: str) -> Path:
    return paths.trajectory(suite.name, name, suite.seeds[0], PROTOCOLS[0])


def _of_blocks(label: str, seeds: Sequence[Mapping[str, float]]) -> str:
    means = {block: round(fmean(seed[block] for seed in seeds), 2) for block in seeds[0]}
    lowest, highest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[lowest] == means[highest]:
        return f"{label}: every block has the mean coefficient {means[lowest]:.2f}."
    order = list(means)
    deeper = order.index(highest) > order.index(lowest)
    return (
        f"{label}: the mean coefficient is highest in {highest} ({means[highest]:.2f}) and lowest "
        f"in {lowest} ({means[lowest]:.2f}), a {'shallower' if deeper else 'deeper'} block."
    )


def _of_seeds(label: str, found: tuple[float, float]) -> str:
    return (
        f"{label}: coefficients of two seeds correlate by {found[0]:.2f} and differ by "
        f"{found[1]:.3f} on average."
    )
