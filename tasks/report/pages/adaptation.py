"""What happens while coefficients are learned."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import Look, is_layer_wise_adamerging, looks
from tasks.report.charts import LineChart, Panels, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted
from tasks.report.measurements import Curve
from tasks.report.rows import AVERAGE

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Adaptation"
QUESTION = "Does accuracy rise while entropy falls?"
FIGURES: tuple[str, ...] = ("trajectories",)
FILES: tuple[str, ...] = ()

_COLUMNS = ("entropy, first", "entropy, last", "accuracy, first", "accuracy, last", "change")

_Points = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


def reads(suite: "Suite") -> list[Path]:
    """List the trajectories of the first seed."""
    return list(_trajectories(suite, Path()).values())


def show(suite: "Suite", root: Path) -> Content:
    """Draw the trajectories; say where they begin and end."""
    curves = {key: measurements.curve(path) for key, path in _trajectories(suite, root).items()}
    shown_as, seed = looks(suite.merging, suite.model.is_classifier), suite.seeds[0]
    adapting = [name for name, method in suite.merging.items() if method.adapts]
    published = [name for name in adapting if is_layer_wise_adamerging(suite.merging[name])]
    detail = (published or adapting)[0]
    ends = {name: _ends(curves[name, PROTOCOLS[0]], suite.tasks) for name in adapting}
    detailed = curves[detail, PROTOCOLS[0]]
    by_task = {task: _ends_of(detailed, task) for task in suite.tasks}
    label, images = shown_as[detail].label, suite.evaluate.trajectory_images
    return Content(
        tables=[
            Table(
                name="by_method",
                title="From the first to the last step",
                text=f"Means over tasks, paper's protocol, seed {seed}. Entropy (nats) is of each "
                "step's images, averaged over neighbouring steps; accuracy (percent) is measured "
                f"on {images} test images of each task, so that the results differ from it.",
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
            *(_finding(shown_as[name].label, *found) for name, found in ends.items()),
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


def _trajectories(suite: "Suite", root: Path) -> dict[tuple[str, str], Path]:
    return {
        (name, protocol): root / paths.trajectory(suite.name, name, suite.seeds[0], protocol)
        for name, method in suite.merging.items()
        if method.adapts
        for protocol in PROTOCOLS
    }


def _ends(curve: Curve, tasks: tuple[str, ...]) -> tuple[float, ...]:
    """First and last entropy, in two decimals; first and last accuracy, in one."""
    return _first_and_last(mean_entropy(curve, tasks), measured(curve, "accuracy_average")[1])


def _ends_of(curve: Curve, task: str) -> tuple[float, ...]:
    entropy = np.array(curve[f"entropy_{task}"])
    return _first_and_last(entropy, measured(curve, f"accuracy_{task}")[1])


def _first_and_last(entropy: np.ndarray, accuracy: Sequence[float]) -> tuple[float, ...]:
    known = smooth(entropy[~np.isnan(entropy)])
    ends = (known[0], known[-1], accuracy[0], accuracy[-1])
    return tuple(round(float(v), digits) for v, digits in zip(ends, (2, 2, 1, 1), strict=True))


def _cells(ends: tuple[float, ...]) -> list[Cell]:
    first, last, before, after = ends
    texts = (
        f"{first:.2f}",
        f"{last:.2f}",
        f"{before:.1f}",
        f"{after:.1f}",
        f"{after - before:+.1f}",
    )
    return [Cell(text) for text in texts]


def _finding(label: str, first: float, last: float, before: float, after: float) -> str:
    entropy = _moves("entropy", first, last, f"{first:.2f}", f"{last:.2f} nats")
    accuracy = _moves("accuracy", before, after, f"{before:.1f}", f"{after:.1f} %")
    return f"{label}: {entropy}, {accuracy}."


def _moves(what: str, first: float, last: float, first_text: str, last_text: str) -> str:
    if first == last:
        return f"{what} stays at {last_text}"
    return f"{what} {'falls' if last < first else 'rises'} from {first_text} to {last_text}"


def _failures(label: str, by_task: Mapping[str, tuple[float, ...]], images: int) -> str:
    misled = [
        f"{task} (entropy {first:.2f} to {last:.2f}, accuracy {before:.1f} to {after:.1f} %)"
        for task, (first, last, before, after) in by_task.items()
        if last < first and after < before
    ]
    if not misled:
        return f"{label}: on no task does accuracy fall while entropy falls ({images} images each)."
    return (
        f"{label}: accuracy falls with entropy on {', '.join(misled)}, measured on {images} "
        "images of each task."
    )
