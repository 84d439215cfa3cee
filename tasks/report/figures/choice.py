"""What the criterion gave for each value that a method tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from tasks.report.figures.canvas import (
    COLUMNS,
    TITLE_WIDTH,
    drawing,
    handle,
    panels,
    rows_of_panels,
    short_label,
    task_handles,
    task_looks,
)
from tasks.report.measurements import Curve


@dataclass(frozen=True)
class Choice:
    """The values that a method tried for a parameter, and what its criterion gave."""

    label: str
    """Of the method."""
    parameter: str
    criterion: str
    values: Sequence[str]
    measured: Curve
    """By task and "average"."""
    higher_is_better: bool

    def best(self, column: str) -> int:
        """Find the value that the criterion prefers for a task, or on average."""
        measured = np.array(self.measured[column])
        return int(np.argmax(measured) if self.higher_is_better else np.argmin(measured))


def choices(made: Sequence[Choice], task_names: Sequence[str]) -> bytes:
    """Draw the criterion over the values, a panel a method; what it chose is marked."""
    with drawing(10, 4.8 * rows_of_panels(len(made))) as (figure, buffer):
        for index, (axes, choice) in enumerate(
            zip(panels(figure, len(made), share_y=False), made, strict=True)
        ):
            places = _places(choice.values)
            for name, look in task_looks(task_names).items():
                thin = {**look, "alpha": 0.8, "linewidth": 1, "markersize": 3.5}
                axes.plot(places, choice.measured[name], **thin)
            average, chosen = choice.measured["average"], choice.best("average")
            axes.plot(places, average, color="black", linewidth=3)
            axes.axvline(places[chosen], color="#555555", linestyle=":")
            axes.plot(
                places[chosen],
                average[chosen],
                "o",
                color="black",
                markersize=10,
                markerfacecolor="white",
            )
            if not _numbers(choice.values):
                axes.set_xticks(places, choice.values, rotation=45, ha="right")
            width = max(TITLE_WIDTH, 2 * TITLE_WIDTH * (len(made) < COLUMNS - 1))
            title = fill(short_label(choice.label), width, break_on_hyphens=False)
            axes.set_title(f"{title}\nchosen: {choice.values[chosen]}", loc="left")
            axes.set_xlabel(choice.parameter)
            if index % COLUMNS == 0 or choice.criterion != made[index - 1].criterion:
                axes.set_ylabel(choice.criterion)
        handles = [handle("average", color="black", linewidth=3), *task_handles(task_names)]
        figure.legend(handles=handles, loc="outside lower center", ncols=9)
    return buffer.getvalue()


def _places(values: Sequence[str]) -> list[float]:
    """Where the values stand on the x axis: where they are numbers, at these."""
    return (
        [float(v) for v in values] if _numbers(values) else [float(i) for i in range(len(values))]
    )


def _numbers(values: Sequence[str]) -> bool:
    try:
        return bool([float(value) for value in values])
    except ValueError:
        return False
