"""What happens while coefficients are learned."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import Look, is_layer_wise_adamerging, looks
from tasks.report.charts import LineChart, Panels, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, seeds_of
from tasks.report.measurements import Curve
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    NATS,
    NOT_SHOWN,
    PERCENT,
    Scale,
    Summary,
    cell,
    difference,
    is_shown,
    percent,
    spread,
)

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Adaptation"
QUESTION = "Does accuracy rise while entropy falls?"
FIGURES: tuple[str, ...] = ("trajectories",)
FILES: tuple[str, ...] = ()

_COLUMNS = ("entropy, first", "entropy, last", "accuracy, first", "accuracy, last", "change")

_Points = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


@dataclass(frozen=True)
class _Ends:
    """Where adaptations with several seeds begin and end."""

    entropy: tuple[Summary, Summary]
    accuracy: tuple[Summary, Summary]
    change: Summary
    """Of the accuracy."""

    @classmethod
    def of(
        cls,
        curves: Sequence[Curve],
        entropy: Callable[[Curve], np.ndarray],
        accuracy: str,
    ) -> "_Ends":
        """Take them from the curves of the seeds; `accuracy` is a column."""
        entropies = [smooth(values[~np.isnan(values)]) for values in map(entropy, curves)]
        accuracies = [measured(curve, accuracy)[1] for curve in curves]
        return cls(
            (_over(e[0] for e in entropies), _over(e[-1] for e in entropies)),
            (_over(a[0] for a in accuracies), _over(a[-1] for a in accuracies)),
            _over(a[-1] - a[0] for a in accuracies),
        )


def _over(values: Iterable[float]) -> Summary:
    return Summary.of([{AVERAGE: float(value)} for value in values])


def reads(suite: "Suite") -> list[Path]:
    """List the trajectories of every seed by the paper's protocol, of the first by both."""
    first = _trajectories(suite, Path())
    ends = [path for name in _adapting(suite) for path in _ends_files(suite, Path(), name)]
    return list(dict.fromkeys([*first.values(), *ends]))


def show(suite: "Suite", root: Path) -> Content:
    """Draw the trajectories; say where they begin and end."""
    curves = {key: measurements.curve(path) for key, path in _trajectories(suite, root).items()}
    shown_as, seed = looks(suite.merging, suite.model.is_classifier), suite.seeds[0]
    adapting = _adapting(suite)
    published = [name for name in adapting if is_layer_wise_adamerging(suite.merging[name])]
    detail = (published or adapting)[0]
    seeds = {
        name: [measurements.curve(path) for path in _ends_files(suite, root, name)]
        for name in adapting
    }
    ends = {name: _ends(seeds[name], suite.tasks) for name in adapting}
    by_task = {task: _ends_of(seeds[detail], task) for task in suite.tasks}
    label, images = shown_as[detail].label, suite.evaluate.trajectory_images
    return Content(
        tables=[
            Table(
                name="by_method",
                title="From the first to the last step",
                text="Means over tasks, paper's protocol. Entropy (nats) is of each step's images, "
                "averaged over neighbouring steps; accuracy (percent) is measured on "
                f"{images} test images of each task, so that the results differ from it. "
                f"{seeds_of(suite)}",
                headings=("method",),
                columns=_COLUMNS,
                lines=[
                    Line((shown_as[name].label,), _cells(found), colour=shown_as[name].colour)
                    for name, found in ends.items()
                ],
            ),
            Table(
                name="by_task",
                title=f"Task by task: {label}",
                text="The same for each task of this method.",
                headings=("task",),
                columns=_COLUMNS,
                lines=[Line((task,), _cells(found)) for task, found in by_task.items()],
            ),
        ],
        figures=[
            charted(
                name="trajectories",
                title="Entropy and accuracy along adaptation",
                text="Look for accuracy that rises while entropy falls: entropy, which needs no "
                "labels, is what AdaMerging minimises in place of the error, and a task whose "
                "accuracy sinks while its entropy falls is one where that fails. Entropy is of "
                "each step's images, averaged over neighbouring steps; accuracy is measured on a "
                f"part of the test images at a few steps. Seed {seed}.",
                alt="Four line charts over the adaptation step: entropy and accuracy, mean over "
                f"tasks by method, and by task for {label}. The tables below have their ends.",
                panels=panels(curves, suite.tasks, shown_as, detail),
            )
        ],
        findings=[
            *(_finding(shown_as[name].label, found) for name, found in ends.items()),
            _failures(label, by_task, images),
        ],
    )


def panels(
    curves: Mapping[tuple[str, str], Curve],
    tasks: tuple[str, ...],
    looks: Mapping[str, Look],
    detail: str,
) -> Panels:
    """Make charts of entropy and accuracy by method and protocol; and task by task, for the method
    `detail` under the first protocol.
    """
    detailed, label = curves[detail, PROTOCOLS[0]], looks[detail].label
    entropies = [
        _series(looks, *key, _entropy(curve["step"], mean_entropy(curve, tasks)))
        for key, curve in curves.items()
    ]
    accuracies = [
        _series(looks, *key, measured(curve, f"accuracy_{AVERAGE}"))
        for key, curve in curves.items()
    ]
    return {
        "Entropy: mean over tasks": _chart("entropy (nats)", entropies),
        "Accuracy: mean over tasks": _chart("top-1 accuracy (%)", accuracies),
        f"Entropy: each task, {label}": _chart(
            "entropy (nats)",
            [
                Series(task, *_entropy(detailed["step"], np.array(detailed[f"entropy_{task}"])))
                for task in tasks
            ],
        ),
        f"Accuracy: each task, {label}": _chart(
            "top-1 accuracy (%)",
            [Series(task, *measured(detailed, f"accuracy_{task}")) for task in tasks],
        ),
    }


def _chart(y_title: str, series: list[Series]) -> LineChart:
    return LineChart(x_title="adaptation step", y_title=y_title, series=series)


def _series(looks: Mapping[str, Look], method: str, protocol: str, points: _Points) -> Series:
    """Make a method's line, dashed under the second protocol."""
    first = protocol == PROTOCOLS[0]
    return Series(
        looks[method].label if first else f"{looks[method].label}, {protocol.replace('_', '-')}",
        *points,
        colour=looks[method].colour,
        line="solid" if first else "dashed",
    )


def _entropy(steps: Sequence[float], entropy: np.ndarray) -> _Points:
    """Smooth the entropy where there is one: there is none at the start."""
    known = ~np.isnan(entropy)
    return np.array(steps)[known].tolist(), smooth(entropy[known]).tolist()


def mean_entropy(curve: Curve, task_names: Sequence[str]) -> np.ndarray:
    """Average the entropy of each step's images over the tasks: [steps] in nats."""
    return np.mean([curve[f"entropy_{name}"] for name in task_names], axis=0)


def measured(curve: Curve, column: str) -> _Points:
    """Give the steps and values of a column where it has values."""
    step, values = np.array(curve["step"]), np.array(curve[column])
    present = ~np.isnan(values)
    return step[present].tolist(), values[present].tolist()


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window of 1/10 of all steps around each; narrower at both ends."""
    reach = math.ceil(len(values) / 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return np.array([window.mean() for window in windows])


def _adapting(suite: "Suite") -> list[str]:
    return [name for name, method in suite.merging.items() if method.adapts]


def _trajectories(suite: "Suite", root: Path) -> dict[tuple[str, str], Path]:
    return {
        (name, protocol): root / paths.trajectory(suite.name, name, suite.seeds[0], protocol)
        for name in _adapting(suite)
        for protocol in PROTOCOLS
    }


def _ends_files(suite: "Suite", root: Path, name: str) -> list[Path]:
    """Name a method's trajectories by the paper's protocol, a seed each."""
    return [root / paths.trajectory(suite.name, name, seed, PROTOCOLS[0]) for seed in suite.seeds]


def _ends(curves: Sequence[Curve], tasks: tuple[str, ...]) -> _Ends:
    return _Ends.of(curves, lambda curve: mean_entropy(curve, tasks), f"accuracy_{AVERAGE}")


def _ends_of(curves: Sequence[Curve], task: str) -> _Ends:
    return _Ends.of(curves, lambda curve: np.array(curve[f"entropy_{task}"]), f"accuracy_{task}")


def _cells(ends: _Ends) -> list[Cell]:
    before, after = ends.accuracy
    return [
        *(cell(each, scale=NATS) for each in ends.entropy),
        *(cell(each) for each in ends.accuracy),
        Cell(f"{difference(after, before):+.1f}", spread(ends.change)),
    ]


def _finding(label: str, ends: _Ends) -> str:
    entropy = _moves("entropy", *ends.entropy, NATS)
    accuracy = _moves("accuracy", *ends.accuracy, PERCENT)
    return f"{label}: {entropy}, {accuracy}."


def _moves(what: str, first: Summary, last: Summary, scale: Scale) -> str:
    change = difference(last, first, scale=scale)
    if change == 0:
        return f"{what} stays at {percent(last, scale=scale)}"
    verb = "falls" if change < 0 else "rises"
    within = "" if is_shown(last, first, scale=scale) else f" ({NOT_SHOWN})"
    return f"{what} {verb} from {_from_to(first, last, scale)}{within}"


def _from_to(first: Summary, last: Summary, scale: Scale) -> str:
    return f"{percent(first, scale=replace(scale, unit=''))} to {percent(last, scale=scale)}"


def _failures(label: str, by_task: Mapping[str, _Ends], images: int) -> str:
    misled = [
        _misled(task, ends)
        for task, ends in by_task.items()
        if _falls(*ends.entropy, NATS) and _falls(*ends.accuracy, PERCENT)
    ]
    if not misled:
        return f"{label}: on no task does accuracy fall while entropy falls ({images} images each)."
    return (
        f"{label}: accuracy falls with entropy on {', '.join(misled)}, measured on {images} "
        "images of each task."
    )


def _falls(first: Summary, last: Summary, scale: Scale) -> bool:
    return difference(last, first, scale=scale) < 0


def _misled(task: str, ends: _Ends) -> str:
    entropy, accuracy = _from_to(*ends.entropy, NATS), _from_to(*ends.accuracy, PERCENT)
    shown = is_shown(*ends.entropy, scale=NATS) and is_shown(*ends.accuracy)
    return f"{task} (entropy {entropy}, accuracy {accuracy}{'' if shown else f', {NOT_SHOWN}'})"
