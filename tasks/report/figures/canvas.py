"""What the pictures are drawn on: PNG bytes, equal for equal inputs.

Drawn with matplotlib's Agg canvas and its own DejaVu fonts, whatever the user's matplotlibrc says.
matplotlib is imported when something is drawn, so that who only asks what a page reads does not
wait for it.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Paul Tol's palette "muted", safe for colour-blind readers; markers tell lines apart once more
_COLOURS = (
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
MARKERS = "osD^vP*X<>"
"""As matplotlib names them."""

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
    "text.parse_math": False,  # a class may be called $\\frac$
}
_DPI = 150

COLUMNS = 4
"""Panels beside each other, at most."""

MOST_MARKERS = 12
"""Of a line; one with more points has markers at some."""

TITLE_WIDTH = 24
"""Characters of a title that fit above one of so many panels."""


_NAME, _LABEL = 22, 60  # characters of a task's name, and of a method's label, beside a picture


def short_name(name: str) -> str:
    """Cut a task's name in its middle to what fits beside a picture; the tables have it whole."""
    return _cut(name, _NAME)


def short_label(label: str) -> str:
    """Cut a method's label likewise."""
    return _cut(label, _LABEL)


def written(value: float) -> str:
    """Write a number that a chart shows: one decimal, of small ones two."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cut(text: str, length: int) -> str:
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


@contextmanager
def drawing(width: float, height: float) -> "Iterator[tuple[Figure, io.BytesIO]]":
    """Open a figure of this size in inches; its PNG is in the buffer at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # its font lacks many scripts and draws boxes for them; the pages' tables have the names
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, buffer
        # without the version of matplotlib in the file
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})


def handle(label: str, **look: Any) -> "Line2D":
    """Make a legend's entry of a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def line_looks(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Say how each line is drawn, the tasks' the same in every figure."""
    return {
        label: {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.4,
        }
        for index, label in enumerate(labels)
    }
