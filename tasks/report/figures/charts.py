"""Charts drawn as pictures."""

from collections.abc import Sequence
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.report.charts import BarChart, Chart, HeatMap, LineChart, Panels
from tasks.report.figures.canvas import (
    COLUMNS,
    MOST_MARKERS,
    TITLE_WIDTH,
    drawing,
    handle,
    line_looks,
    short_label,
    short_name,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))
"""Tell levels apart where colours do not."""
_LINES = {"solid": "-", "dashed": "--", "none": "none"}
_SHAPES = {"circle": ("o", 13), "square": ("s", 18)}
_HEIGHT, _ROW_HEIGHT, _GROUPED_HEIGHT = 4.6, 0.22, 7.2
_LEGEND_WIDTH = 150
"""Characters beside each other below a picture."""


def picture(panels: Panels) -> bytes:
    """Draw charts beside each other, at most four in a row, as PNG."""
    columns = _columns(len(panels))
    rows = -(-len(panels) // columns)
    height = max(map(_height, panels.values())) * (1 if rows == 1 else 0.7)
    with drawing(10, height * rows) as (figure, buffer):
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        handles: dict[str, Line2D] = {}
        maps: list[tuple[Axes, HeatMap, AxesImage]] = []
        for axes, (title, chart) in zip(places, panels.items(), strict=False):
            axes.set_title(fill(title, TITLE_WIDTH * COLUMNS // columns), loc="left")
            if isinstance(chart, HeatMap):
                maps.append((axes, chart, _heat_map(axes, chart)))
            else:
                drawn = _lines(axes, chart) if isinstance(chart, LineChart) else _bars(axes, chart)
                handles |= {str(each.get_label()): each for each in drawn}
        _say_once(places, list(panels.values()), columns)
        for axes in places[len(panels) :]:
            axes.remove()
        _colour_bars(maps)
        if handles:
            longest = max(map(len, handles))
            figure.legend(
                handles=list(handles.values()),
                loc="outside lower center",
                ncols=min(len(handles), max(1, _LEGEND_WIDTH // (longest + 8))),
            )
    return buffer.getvalue()


def _columns(count: int) -> int:
    """How many panels stand beside each other: four are two by two."""
    return 2 if count == COLUMNS else min(count, COLUMNS)


def _height(chart: Chart) -> float:
    if not isinstance(chart, HeatMap):
        return _HEIGHT
    return _GROUPED_HEIGHT if chart.groups else max(_HEIGHT, _ROW_HEIGHT * len(chart.rows) + 1.5)


def _say_once(places: "Sequence[Axes]", charts: Sequence[Chart], columns: int) -> None:
    """Leave out what the panel to the left says already: the axis's title, names of equal rows."""
    for number, (left, chart) in enumerate(pairwise(charts), 1):
        if number % columns == 0 or left.y_title != chart.y_title:
            continue
        places[number].set_ylabel("")
        if isinstance(left, HeatMap) and isinstance(chart, HeatMap) and left.ticks == chart.ticks:
            places[number].tick_params(labelleft=False)


def _lines(axes: "Axes", chart: LineChart) -> "list[Line2D]":
    handles = []
    if chart.x_scale == "log":
        from matplotlib.ticker import LogLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # some within one power of ten
        axes.xaxis.set_major_formatter("{x:g}")  # its own writes mathematics, which is turned off
        axes.xaxis.set_minor_formatter("")
    looks = line_looks([each.label for each in chart.series])
    for each in chart.series:
        look = looks[each.label] | {"linestyle": _LINES[each.line]}
        look |= {"color": each.colour} if each.colour else {}
        every = 1 if each.line == "none" else max(1, len(each.x) // MOST_MARKERS)
        axes.errorbar(each.x, each.y, each.spread or None, capsize=2, markevery=every, **look)
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
        _turn_if_crowded(axes, chart.names)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    return handles


def _bars(axes: "Axes", chart: BarChart) -> "list[Line2D]":
    width = 0.8 / len(chart.bars)
    looks = line_looks([each.label for each in chart.bars])
    handles = []
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
        if chart.shows_numbers:
            axes.bar_label(found, fmt=written, padding=2, fontsize=8)
        if len(chart.bars) > 1:
            handles.append(handle(short_label(each.label), color=colour, linewidth=6))
    axes.set_xticks(range(len(chart.groups)), list(map(short_name, chart.groups)))
    _turn_if_crowded(axes, chart.groups)
    axes.set_ylabel(chart.y_title)
    return handles


def _heat_map(axes: "Axes", chart: HeatMap) -> "AxesImage":
    low, high = chart.limits or (None, None)
    drawn = axes.imshow(
        chart.values,
        vmin=low,
        vmax=high,
        cmap="RdBu_r" if chart.diverging else "cividis",
        aspect="auto",
        interpolation="none",
    )
    axes.set_facecolor("#dddddd")
    axes.grid(visible=False)
    axes.set_xticks(range(len(chart.columns)), list(map(short_name, chart.columns)))
    _turn_if_crowded(axes, chart.columns)
    axes.set_yticks(list(chart.ticks.values()), list(map(short_name, chart.ticks)))
    for border in chart.borders:
        axes.axhline(border, color="white", linewidth=1.2)
    axes.set_ylabel(chart.y_title)
    if chart.shows_numbers and _columns_beside(axes) <= 2:
        _write_numbers(axes, chart, drawn)
    return drawn


def _write_numbers(axes: "Axes", chart: HeatMap, drawn: "AxesImage") -> None:
    shown = np.array(chart.values)
    dark = drawn.to_rgba(shown)[..., :3] @ (0.299, 0.587, 0.114) < 0.5
    for (row, column), value in np.ndenumerate(shown):
        if not np.isnan(value):
            colour = "white" if dark[row, column] else "black"
            middle = {"ha": "center", "va": "center", "fontsize": 8}
            axes.text(column, row, written(value), middle, color=colour)


def _colour_bars(maps: "Sequence[tuple[Axes, HeatMap, AxesImage]]") -> None:
    """Draw one for all that have the same limits, else one each."""
    scales = {(chart.scale_title, chart.limits) for _, chart, _ in maps}
    together = len(scales) == 1 and None not in {chart.limits for _, chart, _ in maps}
    groups = [maps] if together else [[each] for each in maps]
    for group in groups:
        places = [axes for axes, _, _ in group]
        (_, chart, drawn) = group[0]
        places[0].figure.colorbar(drawn, ax=places, shrink=0.6, aspect=30, label=chart.scale_title)


def _turn_if_crowded(axes: "Axes", names: Sequence[str]) -> None:
    if sum(map(len, names)) > 70 // _columns_beside(axes):
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _columns_beside(axes: "Axes") -> int:
    place = axes.get_subplotspec()
    return place.get_gridspec().ncols if place else 1
