"""Entropy and accuracy along adaptation."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.graph.paths import PROTOCOLS
from tasks.report.catalogue import Look
from tasks.report.figures.canvas import drawing, handle, short_label, task_handles, task_looks
from tasks.report.measurements import Curve

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

_TITLE = 54  # characters above one of two panels

_LINE_STYLES: dict[str, Literal["-", "--"]] = {"transductive": "-", "held_out": "--"}


def trajectories(
    curves: Mapping[tuple[str, str], Curve],
    task_names: Sequence[str],
    looks: Mapping[str, Look],
    detail: str,
) -> bytes:
    """Draw entropy and accuracy by method and protocol; below, task by task, for the method
    `detail` under the first protocol.
    """
    with drawing(10, 8.2) as (figure, buffer):
        (entropy, accuracy), (entropy_by_task, accuracy_by_task) = figure.subplots(
            2, 2, sharex=True
        )
        for (method, protocol), curve in curves.items():
            look = {"color": looks[method].colour, "linestyle": _LINE_STYLES[protocol]}
            entropy.plot(curve["step"], smooth(mean_entropy(curve, task_names)), **look)
            accuracy.plot(*measured(curve, "accuracy_average"), marker="o", markersize=4, **look)
        curve = curves[detail, PROTOCOLS[0]]
        for name, look in task_looks(task_names).items():
            entropies = smooth(np.array(curve[f"entropy_{name}"]))
            entropy_by_task.plot(curve["step"], entropies, **{**look, "marker": ""})
            accuracy_by_task.plot(*measured(curve, f"accuracy_{name}"), **look)
        for axes, what, which in (
            (entropy, "Entropy", "mean over tasks"),
            (accuracy, "Accuracy", "mean over tasks"),
            (entropy_by_task, "Entropy", f"each task, {short_label(looks[detail].label)}"),
            (accuracy_by_task, "Accuracy", f"each task, {short_label(looks[detail].label)}"),
        ):
            axes.set_title(fill(f"{what}: {which}", _TITLE, break_on_hyphens=False), loc="left")
            axes.set_ylabel("entropy (nats)" if what == "Entropy" else "top-1 accuracy (%)")
            axes.tick_params(labelbottom=True)
        entropy_by_task.set_xlabel("adaptation step")
        accuracy_by_task.set_xlabel("adaptation step")
        figure.legend(handles=_handles(curves, looks), loc="outside upper center", ncols=4)
        figure.legend(handles=task_handles(task_names), loc="outside lower center", ncols=8)
    return buffer.getvalue()


def mean_entropy(curve: Curve, task_names: Sequence[str]) -> np.ndarray:
    """Average the entropy of each step's images over the tasks: [steps] in nats."""
    return np.mean([curve[f"entropy_{name}"] for name in task_names], axis=0)


def measured(curve: Curve, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Give the steps and values of a column where it has values."""
    step, values = np.array(curve["step"]), np.array(curve[column])
    present = ~np.isnan(values)
    return step[present], values[present]


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window of 1/10 of all steps around each; narrower at both ends."""
    reach = math.ceil(len(values) / 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return np.array([window.mean() for window in windows])


def _handles(curves: Mapping[tuple[str, str], Curve], looks: Mapping[str, Look]) -> "list[Line2D]":
    methods = dict.fromkeys(method for method, _ in curves)
    protocols = dict.fromkeys(protocol for _, protocol in curves)
    colours = [
        handle(short_label(looks[m].label), color=looks[m].colour, linewidth=3) for m in methods
    ]
    return colours + [
        handle(f"{name.replace('_', '-')} protocol", color="#555555", linestyle=_LINE_STYLES[name])
        for name in protocols
    ]
