"""Charts as data: what a figure shows, whatever it is drawn with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Series:
    """A line of a line chart."""

    label: str
    x: Sequence[float]
    """Places on the axis; the numbers 0, 1, 2 … of `LineChart.names` where it has names."""
    y: Sequence[float]
    spread: Sequence[float] = ()
    """Of y, above and below; empty where nothing is known of it."""
    colour: str | None = None
    """None takes the next of the palette."""
    line: Literal["solid", "dashed", "none"] = "solid"


@dataclass(frozen=True)
class Level:
    """A horizontal line across a line chart: a value that does not depend on x."""

    label: str
    y: float
    colour: str | None = None


@dataclass(frozen=True)
class Mark:
    """A hollow shape around points of a line chart, and what it says of them."""

    label: str
    shape: Literal["circle", "square"]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis."""

    x_title: str
    y_title: str
    series: Sequence[Series]
    names: Sequence[str] = ()
    """Of the places on the x axis, side by side; empty for an axis of numbers."""
    levels: Sequence[Level] = ()
    marks: Sequence[Mark] = ()
    x_scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True)
class Bars:
    """A bar in each group, of one colour."""

    label: str
    values: Sequence[float]
    spread: Sequence[float] = ()
    colour: str | None = None


@dataclass(frozen=True)
class BarChart:
    """Groups of bars."""

    y_title: str
    groups: Sequence[str]
    bars: Sequence[Bars]


@dataclass(frozen=True)
class HeatMap:
    """A value for each row and column, as a colour."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    """Row by row; not-a-number where there is none."""
    scale_title: str
    limits: tuple[float, float] | None = None
    """Of the colours; None takes the lowest and highest value."""
    y_title: str = ""


Chart = LineChart | BarChart | HeatMap

Panels = Mapping[str, Chart]
"""Charts side by side, by title; a single one may have the title ""."""
