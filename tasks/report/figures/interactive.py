"""Charts as plotly.js takes them: traces and a layout, which a page's script puts on the screen.

Colours of text, lines and ground are the page's; the script adds them. Texts are written so that
plotly, which reads tags and entities in them, shows them as they are.
"""

import html
import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from tasks.report.charts import BarChart, Chart, HeatMap, LineChart, Panels, Series
from tasks.report.escapes import plain
from tasks.report.figures.canvas import MARKERS, MOST_MARKERS, line_looks, short_name, written

LIBRARY = "plotly.min.js"
"""The file beside the pages that the script draws with."""

_SYMBOLS = dict(
    zip(
        MARKERS,
        (
            "circle",
            "square",
            "diamond",
            "triangle-up",
            "triangle-down",
            "cross",
            "star",
            "x",
            "triangle-left",
            "triangle-right",
        ),
        strict=True,
    )
)
_DASHES = ("dash", "dot", "dashdot", "longdash")
_BLUE_TO_RED = (
    "#053061",
    "#2166ac",
    "#4393c3",
    "#92c5de",
    "#d1e5f0",
    "#f7f7f7",
    "#fddbc7",
    "#f4a582",
    "#d6604d",
    "#b2182b",
    "#67001f",
)
_DIVERGING = [[place / 10, colour] for place, colour in enumerate(_BLUE_TO_RED)]
"""The colours of the pictures, of ColorBrewer."""
_MODES = {"solid": "lines+markers", "dashed": "lines+markers", "none": "markers"}
_GREY = "#555555"
_HOVER = "%{meta[0]}<br>%{meta[1]}: %{customdata[0]}<br>%{meta[2]}: %{customdata[1]}<extra></extra>"
_HEIGHT, _HIGHEST, _ROW_HEIGHT = 360, 680, 18
"""In pixels: of a chart, of one with many rows, and of a row."""


def library() -> bytes:
    """Read plotly.js (MIT licence) as the package plotly ships it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


def plots(panels: Panels) -> list[dict[str, Any]]:
    """Make a plot a panel: `title`, `data` and `layout`.

    Traces that have a name are those of the legend, which the script makes. All of it is what JSON
    can hold; a number that is none is null.
    """
    return [{"title": plain(title), **_plot(chart)} for title, chart in panels.items()]


def _plot(chart: Chart) -> dict[str, Any]:
    if isinstance(chart, LineChart):
        return _lines(chart)
    return _bars(chart) if isinstance(chart, BarChart) else _heat_map(chart)


def _lines(chart: LineChart) -> dict[str, Any]:
    places = sorted({float(x) for each in chart.series for x in each.x})
    traces = [_line(chart, each) for each in chart.series]
    for number, level in enumerate(chart.levels):
        traces.append(
            {
                **_hover(level.label, chart, [(x, level.y, None) for x in places], chart.names),
                "mode": "lines",
                "line": {
                    "color": level.colour or _GREY,
                    "dash": _DASHES[number % len(_DASHES)],
                    "width": 2,
                },
            }
        )
    for mark in chart.marks:
        traces.append(
            {
                "type": "scatter",
                "name": plain(mark.label),
                "x": [_number(x) for x, _ in mark.points],
                "y": [_number(y) for _, y in mark.points],
                "mode": "markers",
                "hoverinfo": "skip",
                "marker": {
                    "color": _GREY,
                    "symbol": f"{mark.shape}-open",
                    "size": 15,
                    "line": {"width": 2},
                },
            }
        )
    x_axis = {"title": {"text": _text(chart.x_title)}, "type": chart.x_scale}
    x_axis |= _named(chart.names)
    return {"data": traces, "layout": _layout(chart, x_axis)}


def _line(chart: LineChart, series: Series) -> dict[str, Any]:
    look = line_looks([each.label for each in chart.series])[series.label]
    colour = series.colour or look["color"]
    return {
        **_hover(series.label, chart, _points(series.x, series.y, series.spread), chart.names),
        "mode": _MODES[series.line],
        "line": {"color": colour, "dash": "dash" if series.line == "dashed" else "solid"},
        "marker": {
            "color": colour,
            "symbol": _SYMBOLS[look["marker"]],
            "size": 7,
            "maxdisplayed": 0 if series.line == "none" else MOST_MARKERS,
        },
        **_error_bars(series.spread, colour),
    }


def _bars(chart: BarChart) -> dict[str, Any]:
    looks, places = line_looks([each.label for each in chart.bars]), range(len(chart.groups))
    traces = []
    for each in chart.bars:
        colour = each.colour or looks[each.label]["color"]
        numbers = {"text": [written(value) for value in each.values], "textposition": "outside"}
        traces.append(
            {
                **_hover(
                    each.label, chart, _points(places, each.values, each.spread), chart.groups
                ),
                "type": "bar",
                "marker": {"color": colour},
                **_error_bars(each.spread, colour),
                **(numbers if chart.shows_numbers and not each.spread else {}),
            }
        )
    return {"data": traces, "layout": _layout(chart, _named(chart.groups))}


def _numbers(chart: HeatMap) -> dict[str, Any]:
    texts = [["" if math.isnan(v) else written(v) for v in row] for row in chart.values]
    return {"text": texts, "texttemplate": "%{text}"}


def _heat_map(chart: HeatMap) -> dict[str, Any]:
    low, high = chart.limits or (None, None)
    trace = {
        "type": "heatmap",
        "z": [[_number(value) for value in row] for row in chart.values],
        "hovertext": [
            [
                f"{_text(row)}<br>{_text(column)}: {written(value)}"
                for column, value in zip(chart.columns, values, strict=True)
            ]
            for row, values in zip(chart.rows, chart.values, strict=True)
        ],
        "hoverinfo": "text",
        "hoverongaps": False,
        "zmin": low,
        "zmax": high,
        "colorscale": _DIVERGING if chart.diverging else "Cividis",
        "colorbar": {"title": {"text": _text(chart.scale_title), "side": "right"}, "thickness": 12},
        **(_numbers(chart) if chart.shows_numbers else {}),
    }
    layout = _layout(chart, _named(chart.columns))
    layout["yaxis"] |= {
        "autorange": "reversed",
        "showgrid": False,
        "zeroline": False,
        "tickvals": list(chart.ticks.values()),
        "ticktext": [_text(short_name(name)) for name in chart.ticks],
    }
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": border,
            "y1": border,
            "line": {"color": "#ffffff", "width": 1.2},
        }
        for border in chart.borders
    ]
    layout["height"] = min(_HIGHEST, max(_HEIGHT, 100 + _ROW_HEIGHT * len(chart.rows)))
    return {"data": [trace], "layout": layout}


_Points = Sequence[tuple[float, float, float | None]]
"""x, y, and the spread of y where it is known."""


def _points(x: Sequence[float], y: Sequence[float], spread: Sequence[float]) -> _Points:
    known = spread or repeat(None, len(y))
    return list(zip(x, y, known, strict=True))


def _hover(
    label: str, chart: LineChart | BarChart, points: _Points, names: Sequence[str]
) -> dict[str, Any]:
    """Make what every trace has: its points, and what is said of each under the pointer."""
    x_title = chart.x_title if isinstance(chart, LineChart) else ""
    return {
        "type": "scatter",
        "name": plain(label),
        "x": [_number(x) for x, _, _ in points],
        "y": [_number(y) for _, y, _ in points],
        "meta": [_text(label), _text(x_title), _text(chart.y_title)],
        "customdata": [
            [
                _text(names[round(x)]) if names else f"{x:g}",
                written(y) + ("" if spread is None else f" ± {written(spread)}"),
            ]
            for x, y, spread in points
        ],
        "hovertemplate": _HOVER if x_title else _HOVER.replace("%{meta[1]}: ", ""),
    }


def _error_bars(spread: Sequence[float], colour: str) -> dict[str, Any]:
    if not spread:
        return {}
    return {"error_y": {"array": [_number(s) for s in spread], "color": colour, "thickness": 1.4}}


def _layout(chart: Chart, x_axis: Mapping[str, Any]) -> dict[str, Any]:
    y_axis = {"title": {"text": _text(chart.y_title)}}
    return {"xaxis": x_axis, "yaxis": y_axis, "height": _HEIGHT}


def _named(names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {}
    texts = [_text(short_name(name)) for name in names]
    ticks = {"tickvals": list(range(len(names))), "ticktext": texts}
    turned = {"autotickangles": [0, -45, -90]}
    return {**ticks, **turned, "showgrid": False, "zeroline": False}


def _text(text: str) -> str:
    return html.escape(plain(text), quote=False)


def _number(value: float) -> float | None:
    """Keep six digits, more than a screen shows."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
