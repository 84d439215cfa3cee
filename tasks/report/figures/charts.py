"""Charts drawn as pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.report.charts import BarChart, Chart, HeatMap, LineChart, Panels
from tasks.report.figures.canvas import (
    COLUMNS,
    TITLE_WIDTH,
    drawing,
    handle,
    rows_of_panels,
    short_label,
    short_name,
    task_looks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))
"""Tell levels apart where colours do not."""
_LINES = {"solid": "-", "dashed": "--", "none": "none"}
_SHAPES = {"circle": ("o", 13), "square": ("s", 18)}
_HEIGHT, _ROW_HEIGHT = 4.6, 0.22


def picture(panels: Panels) -> bytes:
    """Draw charts beside each other, at most four in a row, as PNG."""
    rows, columns = rows_of_panels(len(panels)), min(len(panels), COLUMNS)
    height = max(map(_height, panels.values())) * (1 if rows == 1 else 0.7)
    with drawing(10, height * rows) as (figure, buffer):
        places = figure.subplots(rows, columns, squeeze=False).flat
        handles: dict[str, Line2D] = {}
        for axes, (title, chart) in zip(places, panels.items(), strict=False):
            axes.set_title(title if columns == 1 else title[:TITLE_WIDTH], loc="left")
            handles |= {str(each.get_label()): each for each in _draw(axes, chart)}
        for axes in list(places):
            axes.remove()
        if handles:
            figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=3)
    return buffer.getvalue()


def _height(chart: Chart) -> float:
    if isinstance(chart, HeatMap):
        return max(_HEIGHT, _ROW_HEIGHT * len(chart.rows) + 1.5)
    return _HEIGHT


def _draw(axes: "Axes", chart: Chart) -> "list[Line2D]":
    """Draw a chart; return the entries of its legend."""
    if isinstance(chart, LineChart):
        return _lines(axes, chart)
    if isinstance(chart, BarChart):
        return _bars(axes, chart)
    _heat_map(axes, chart)
    return []


def _lines(axes: "Axes", chart: LineChart) -> "list[Line2D]":
    handles = []
    if chart.x_scale == "log":
        from matplotlib.ticker import LogLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # some within one power of ten
        axes.xaxis.set_major_formatter("{x:g}")  # its own writes mathematics, which is turned off
        axes.xaxis.set_minor_formatter("")
    looks = task_looks([each.label for each in chart.series])
    for each in chart.series:
        look = looks[each.label] | {"linestyle": _LINES[each.line]}
        look |= {"color": each.colour} if each.colour else {}
        axes.errorbar(each.x, each.y, each.spread or None, capsize=2, **look)
        handles.append(handle(short_label(each.label), **look))
    for number, level in enumerate(chart.levels):
        look = {"color": level.colour or "#555555", "linestyle": _DASHES[number % len(_DASHES)]}
        axes.axhline(level.y, linewidth=1.8, **look)
        handles.append(handle(short_label(level.label), linewidth=1.8, **look))
    for mark in chart.marks:
        shape, size = _SHAPES[mark.shape]
        hollow: dict[str, Any] = {
            "marker": shape,
            "linestyle": "none",
            "color": "#555555",
            "markerfacecolor": "none",
            "markeredgewidth": 1.8,
        }
        x, y = zip(*mark.points, strict=True)
        axes.plot(x, y, markersize=size, **hollow)
        handles.append(handle(mark.label, markersize=9, **hollow))
    if chart.names:
        axes.set_xticks(range(len(chart.names)), list(map(short_name, chart.names)))
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    return handles


def _bars(axes: "Axes", chart: BarChart) -> "list[Line2D]":
    width = 0.8 / len(chart.bars)
    looks = task_looks([each.label for each in chart.bars])
    handles = []
    few = len(chart.groups) * len(chart.bars) <= 24
    for number, each in enumerate(chart.bars):
        shift = (number - (len(chart.bars) - 1) / 2) * width
        colour = each.colour or looks[each.label]["color"]
        found = axes.bar(
            [group + shift for group in range(len(chart.groups))],
            each.values,
            width,
            yerr=each.spread or None,
            color=colour,
            edgecolor="#333333",
        )
        if few:
            axes.bar_label(found, fmt="%.1f", padding=2, fontsize=8)
        handles.append(handle(short_label(each.label), color=colour, linewidth=6))
    axes.set_xticks(range(len(chart.groups)), list(map(short_name, chart.groups)))
    _turn_if_crowded(axes, chart.groups)
    axes.set_ylabel(chart.y_title)
    return handles


def _heat_map(axes: "Axes", chart: HeatMap) -> None:
    low, high = chart.limits or (None, None)
    drawn = axes.imshow(
        chart.values,
        vmin=low,
        vmax=high,
        cmap="cividis",
        aspect="auto",
        interpolation="none",
    )
    axes.grid(visible=False)
    axes.set_xticks(range(len(chart.columns)), list(map(short_name, chart.columns)))
    _turn_if_crowded(axes, chart.columns)
    axes.set_yticks(range(len(chart.rows)), list(map(short_name, chart.rows)))
    axes.set_ylabel(chart.y_title)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=30, label=chart.scale_title)


def _turn_if_crowded(axes: "Axes", names: Sequence[str]) -> None:
    if sum(map(len, names)) > 70:
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
