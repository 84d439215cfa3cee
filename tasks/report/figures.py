"""The pictures of the report, as PNG bytes: equal inputs give equal bytes.

Drawn with matplotlib's Agg canvas and its own DejaVu fonts, whatever the user's matplotlibrc says.
Nothing here imports torch or pyplot.
"""

import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adamerge_core.layers import network_order
from tasks.graph.paths import PROTOCOLS
from tasks.report.results import label

Curve = Mapping[str, Sequence[float]]
"""A metrics file: its columns by name; not-a-number where a cell is empty."""

METHOD_COLOURS = {
    "task_arithmetic": "#56B4E9",
    "task_arithmetic_best": "#56B4E9",
    "ties_merging": "#009E73",
    "ties_merging_best": "#009E73",
    "task_wise_adamerging": "#E69F00",
    "task_wise_adamerging_pp": "#D55E00",
    "layer_wise_adamerging": "#0072B2",
    "layer_wise_adamerging_pp": "#CC79A7",
    "layer_wise_self_labelling": "#882255",
    "layer_wise_tsv": "#117733",
    "layer_wise_tsv_self_labelling": "#999933",
    "layer_wise_supervised": "#000000",
    "adarank": "#332288",
}
"""Of the palettes of Okabe and Ito, and of Tol, which colour-blind readers can tell apart."""

# Paul Tol's palette "muted", safe for colour-blind readers; markers tell the tasks apart once more
_TASK_COLOURS = (
    "#332288",
    "#88CCEE",
    "#117733",
    "#DDCC77",
    "#CC6677",
    "#AA4499",
    "#44AA99",
    "#882255",
    "#999933",
)
_TASK_MARKERS = "osD^vP*X<>"
_LINE_STYLES: dict[str, Literal["-", "--"]] = {"transductive": "-", "held_out": "--"}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_DPI = 150
_COLUMNS = 4
"""Panels beside each other, at most."""
_TITLE_WIDTH = 24
"""Characters of a title that fit above one of so many panels."""
_DETAIL = "layer_wise_adamerging"


@dataclass(frozen=True)
class LayerCoefficients:
    """Learned merging coefficients of a method."""

    values: np.ndarray
    """[L, K] float64; outside [0, 1] only where adaptation does not clamp."""
    layer_names: Sequence[str]
    task_names: Sequence[str]


def method_colour(method: str) -> str:
    """The colour of a method's lines, the same in every figure; others than those above may share
    one.
    """
    other = _TASK_COLOURS[zlib.crc32(method.encode()) % len(_TASK_COLOURS)]
    return METHOD_COLOURS.get(method, other)


# --- the figures --------------------------------------------------------------------------------


def trajectories(curves: Mapping[tuple[str, str], Curve], task_names: Sequence[str]) -> bytes:
    """Entropy and accuracy along the adaptations, by method and protocol; below, task by task, for
    one method (layer-wise AdaMerging where there is one) under the first protocol.
    """
    if not curves:
        return _note("this suite runs no method that adapts")
    first = next(method for method, _ in curves)
    detail = _DETAIL if (_DETAIL, PROTOCOLS[0]) in curves else first
    with drawing(10, 8.2) as (figure, buffer):
        (entropy, accuracy), (entropy_by_task, accuracy_by_task) = figure.subplots(
            2, 2, sharex=True
        )
        for (method, protocol), curve in curves.items():
            look = {"color": method_colour(method), "linestyle": _LINE_STYLES[protocol]}
            mean = np.mean([curve[f"entropy_{name}"] for name in task_names], axis=0)
            entropy.plot(curve["step"], _smooth(mean), **look)
            accuracy.plot(*_measured(curve, "accuracy_average"), marker="o", markersize=4, **look)
        curve = curves[detail, PROTOCOLS[0]]
        for name, look in _task_looks(task_names).items():
            entropies = _smooth(np.array(curve[f"entropy_{name}"]))
            entropy_by_task.plot(curve["step"], entropies, **{**look, "marker": ""})
            accuracy_by_task.plot(*_measured(curve, f"accuracy_{name}"), **look)
        for axes, what, which in (
            (entropy, "Entropy", "mean over tasks"),
            (accuracy, "Accuracy", "mean over tasks"),
            (entropy_by_task, "Entropy", f"each task, {label(detail)}"),
            (accuracy_by_task, "Accuracy", f"each task, {label(detail)}"),
        ):
            axes.set_title(f"{what}: {which}", loc="left")
            axes.set_ylabel("entropy (nats)" if what == "Entropy" else "top-1 accuracy (%)")
            axes.tick_params(labelbottom=True)
        entropy_by_task.set_xlabel("adaptation step")
        accuracy_by_task.set_xlabel("adaptation step")
        figure.legend(handles=_method_handles(curves), loc="outside upper center", ncols=4)
        figure.legend(handles=_task_handles(task_names), loc="outside lower center", ncols=8)
    return buffer.getvalue()


def coefficients(learned: Mapping[str, LayerCoefficients], starts: Sequence[float]) -> bytes:
    """Heat maps [layers, tasks] by method, and the mean of each block of layers; `starts` are the
    coefficients' values before adaptation.
    """
    if not learned:
        return _note("this suite runs no layer-wise AdaMerging")
    with drawing(10, 7.2 * _rows(len(learned) + 1)) as (figure, buffer):
        panels, block_means = _panels(figure, len(learned) + 1), []
        # outside [0, 1] only where adaptation does not clamp
        everything = np.concatenate([found.values.ravel() for found in learned.values()])
        lowest, highest = min(0, everything.min()), max(1, everything.max())
        for axes, (method, found) in zip(panels, learned.items(), strict=False):
            order, blocks = network_order(found.layer_names)
            picture = axes.imshow(
                found.values[order],
                vmin=lowest,
                vmax=highest,
                cmap="cividis",
                aspect="auto",
                interpolation="none",
            )
            axes.set_title(fill(label(method), _TITLE_WIDTH, break_on_hyphens=False), loc="left")
            axes.set_xticks(
                range(len(found.task_names)),
                found.task_names,
                rotation=45,
                ha="right",
                rotation_mode="anchor",
            )
            axes.grid(visible=False)
            middles = [(rows.start + rows.stop - 1) / 2 for rows in blocks.values()]
            for rows in list(blocks.values())[1:]:
                axes.axhline(rows.start - 0.5, color="white", linewidth=1.2)
            means = [found.values[order][rows.start : rows.stop].mean() for rows in blocks.values()]
            block_means += means
            panels[-1].plot(
                means,
                middles,
                marker="o",
                color=method_colour(method),
                label=label(method),
                clip_on=False,
            )
        panels[0].set_yticks(middles, list(blocks))
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("layers, from shallow (top) to deep (bottom)")
        for start in starts:
            panels[-1].axvline(start, color="#555555", linestyle=":", label=f"start, {start:g}")
        panels[-1].set_xlim(min([0, *block_means]), max([1, *block_means]))
        panels[-1].set_xlabel("mean coefficient")
        panels[-1].set_title("Mean of each block", loc="left")
        panels[-1].tick_params(labelleft=False)
        panels[-1].tick_params(left=False)
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
        figure.colorbar(picture, ax=panels[:-1], shrink=0.6, aspect=30, label="merging coefficient")
    return buffer.getvalue()


def task_vectors(task_names: Sequence[str], cosine: np.ndarray, l2_norm: np.ndarray) -> bytes:
    """Cosines [K, K] between the task vectors with their numbers, and their lengths [K]."""
    with drawing(10, 4.9) as (figure, buffer):
        matrix, lengths = figure.subplots(1, 2, width_ratios=(1.5, 1))
        between = np.where(np.eye(len(task_names), dtype=bool), np.nan, cosine)
        limit = max(0.05, float(np.nanmax(np.abs(between), initial=0)))
        picture = matrix.imshow(between, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        matrix.set_facecolor("#dddddd")
        for (row, column), value in np.ndenumerate(cosine):
            dark = row != column and abs(value) > 0.6 * limit
            text = "1" if row == column else f"{value:.2f}"
            colour = "white" if dark else "black"
            matrix.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        ticks = range(len(task_names))
        matrix.set_xticks(ticks, task_names, rotation=45, ha="right", rotation_mode="anchor")
        matrix.set_yticks(ticks, task_names)
        matrix.grid(visible=False)
        matrix.set_title("Cosine between task vectors", loc="left")
        figure.colorbar(picture, ax=matrix, shrink=0.8)
        lengths.barh(ticks, l2_norm, color="#777777")
        for row, value in enumerate(l2_norm):
            lengths.text(value, row, f" {value:.2f}", va="center", fontsize=8)
        lengths.set_yticks(ticks, task_names)
        lengths.invert_yaxis()
        lengths.margins(x=0.15)
        lengths.grid(visible=False, axis="y")
        lengths.set_title("Length of each task vector (L2 norm)", loc="left")
    return buffer.getvalue()


def sweeps(curves: Mapping[str, Curve], task_names: Sequence[str]) -> bytes:
    """Validation accuracy over the scaling, by method; the chosen scaling is marked."""
    if not curves:
        return _note("this suite sweeps no scaling")
    with drawing(10, 4.8 * _rows(len(curves))) as (figure, buffer):
        panels = _panels(figure, len(curves))
        for axes, (method, curve) in zip(panels, curves.items(), strict=True):
            scaling, average = np.array(curve["scaling"]), np.array(curve["average"])
            for name, look in _task_looks(task_names).items():
                axes.plot(
                    scaling,
                    curve[name],
                    **{**look, "alpha": 0.8, "linewidth": 1, "markersize": 3.5},
                )
            axes.plot(scaling, average, color="black", linewidth=3)
            chosen = int(np.argmax(average))
            axes.axvline(scaling[chosen], color="#555555", linestyle=":")
            axes.plot(
                scaling[chosen],
                average[chosen],
                "o",
                color="black",
                markersize=10,
                markerfacecolor="white",
            )
            best = f"chosen: {scaling[chosen]:g}, average {average[chosen]:.1f} %"
            axes.set_title(f"{label(method)}\n{best}", loc="left")
            axes.set_xlabel("scaling")
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("top-1 accuracy on validation images (%)")
        handles = [Line2D([], [], color="black", linewidth=3, label="average")]
        handles += _task_handles(task_names)
        figure.legend(handles=handles, loc="outside lower center", ncols=9)
    return buffer.getvalue()


# --- their parts --------------------------------------------------------------------------------


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of this size in inches; its PNG is in the buffer at the end."""
    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, buffer
        # without the version of matplotlib in the file
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})


def _rows(count: int) -> int:
    """Of panels."""
    return math.ceil(count / _COLUMNS)


def _panels(figure: Figure, count: int) -> list[Any]:
    """`count` axes side by side over one y axis, a few in each row."""
    grid = figure.subplots(_rows(count), min(count, _COLUMNS), sharey=True, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return list(grid.flat[:count])


def _note(text: str) -> bytes:
    """A picture that says why there is none."""
    with drawing(10, 1) as (figure, buffer):
        figure.text(0.5, 0.5, f"Nothing to draw: {text}.", ha="center", va="center", fontsize=11)
    return buffer.getvalue()


def _task_looks(task_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each task's line is drawn, the same in every figure."""
    return {
        name: {
            "color": _TASK_COLOURS[index % len(_TASK_COLOURS)],
            "marker": _TASK_MARKERS[index % len(_TASK_MARKERS)],
            "markersize": 5,
            "linewidth": 1.4,
        }
        for index, name in enumerate(task_names)
    }


def _task_handles(task_names: Sequence[str]) -> list[Line2D]:
    return [Line2D([], [], label=name, **look) for name, look in _task_looks(task_names).items()]


def _method_handles(curves: Mapping[tuple[str, str], Curve]) -> list[Line2D]:
    methods = {method: method_colour(method) for method, _ in curves}
    styles = {protocol: _LINE_STYLES[protocol] for _, protocol in curves}
    colours = [
        Line2D([], [], color=colour, linewidth=3, label=label(name))
        for name, colour in methods.items()
    ]
    return colours + [
        Line2D([], [], color="#555555", linestyle=style, label=f"{name.replace('_', '-')} protocol")
        for name, style in styles.items()
    ]


def _measured(curve: Curve, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a column where it has values."""
    step, values = np.array(curve["step"]), np.array(curve[column])
    present = ~np.isnan(values)
    return step[present], values[present]


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a window of 1/10 of all steps around each; narrower at both ends."""
    reach = math.ceil(len(values) / 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return np.array([window.mean() for window in windows])
