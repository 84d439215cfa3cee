"""What a page shows: tables, figures, findings, and the files beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.report.charts import Panels


@dataclass(frozen=True)
class Cell:
    """A number as it is shown."""

    text: str
    spread: str | None = None
    """Its sample standard deviation over seeds; None where there is one seed."""
    best: bool = False
    shade: str | None = None
    """How high it stands between the lowest, 0, and the highest, 1, of its column."""


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    names: tuple[str, ...]
    """The first is the row's heading."""
    cells: Sequence[Cell] = ()
    colour: str | None = None
    """That its lines have in the figures."""
    reference: bool = False
    last: bool = False
    """Of a group of rows."""


@dataclass(frozen=True)
class Table:
    """A table with headings for rows and columns."""

    name: str
    """Of its place on the page."""
    title: str
    text: str
    """What it shows, and how to read it."""
    headings: tuple[str, ...]
    """Of the names of its rows."""
    columns: tuple[str, ...]
    lines: Sequence[Line]
    legend: str = ""
    swatch: int = 0
    """Which of a row's names has the row's colour before it."""
    on_index: bool = False
    """Whether the report's first page shows it too."""
    emphasised_last: bool = False
    """Whether the last column stays in view: it sums up the row."""


@dataclass(frozen=True)
class Figure:
    """A picture, and how to read it."""

    name: str
    title: str
    text: str
    alt: str
    """What it shows, for who does not see it."""
    png: bytes
    panels: Panels = field(default_factory=dict)
    """What it was drawn from, where that is charts."""


@dataclass(frozen=True)
class Content:
    """What a page shows."""

    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    findings: Sequence[str] = ()
    """Sentences made from numbers that stand on the page."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts written beside the pages, by file name."""
    made_by: Sequence[str] = ()
    """Commands: that which makes the page's numbers, and that which traces them."""


def shade(value: float, column: Sequence[float]) -> str:
    """Say how high a value stands between its column's lowest, 0.00, and highest, 1.00."""
    low, high = min(column), max(column)
    return f"{(value - low) / (high - low) if high > low else 0:.2f}"
