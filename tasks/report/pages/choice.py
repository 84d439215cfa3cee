"""How the value of a method's parameter was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Mark, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted
from tasks.report.measurements import Curve
from tasks.report.rows import AVERAGE

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Choice"
QUESTION = "Does one value of a parameter suit all tasks?"
FIGURES: tuple[str, ...] = ("choice",)
FILES: tuple[str, ...] = ()

_CRITERIA = {
    "accuracy": "top-1 accuracy (%)",
    "entropy": "entropy (nats)",
    "agreement": "agreement with the experts (%)",
}
"""Their labels; others are called by their names."""


@dataclass(frozen=True)
class Choice:
    """The values that a method tried for a parameter, and what its criterion gave."""

    label: str
    """Of the method."""
    parameter: str
    criterion: str
    values: Sequence[str]
    seeds: Sequence[Curve]
    """What the criterion gave with each seed, by task and "average"."""
    higher_is_better: bool

    def best(self, column: str, seed: int = 0) -> int:
        """Find the value that the criterion prefers for a task, or on average, with one seed."""
        measured = np.array(self.seeds[seed][column])
        return int(np.argmax(measured) if self.higher_is_better else np.argmin(measured))

    def chosen(self, column: str) -> list[str]:
        """Find that value for every seed."""
        return [self.values[self.best(column, seed)] for seed in range(len(self.seeds))]

    @property
    def numbers(self) -> list[float] | None:
        """The values, where all are numbers."""
        try:
            return [float(value) for value in self.values]
        except ValueError:
            return None


def reads(suite: "Suite") -> list[Path]:
    """List what the criteria gave, for every seed."""
    return [path for files in _files(suite, Path()).values() for path in files]


def show(suite: "Suite", root: Path) -> Content:
    """Draw the criterion over the values; list what would be best for each task."""
    made = _choices(suite, root)
    first, all_seeds = f"Seed {suite.seeds[0]}.", _of_seeds(suite)
    return Content(
        tables=[
            Table(
                name="best_values",
                title="The best value for each task, and on average",
                text="By the method's own criterion on validation images. The value that is best "
                f"on average is the one that the method's row in the results uses. {all_seeds}",
                headings=("method", "criterion"),
                columns=(*suite.tasks, AVERAGE),
                lines=[
                    Line(
                        (choice.label, choice.criterion),
                        [
                            Cell(_either(choice.chosen(column)))
                            for column in (*suite.tasks, AVERAGE)
                        ],
                    )
                    for choice in made
                ],
                emphasised_last=True,
            )
        ],
        figures=[
            charted(
                name="choice",
                title="The criterion over the values tried",
                text="Look for where each task has its best: one value for all tasks is a "
                "compromise, which is why coefficients of their own help. The circle marks the "
                f"value that is best on average, which was chosen. {first}",
                alt="Line charts, one a method, of the criterion over the parameter's values by "
                "task and on average; the table below has the best values.",
                panels={
                    f"{choice.label}: {choice.values[choice.best(AVERAGE)]} chosen": _chart(
                        choice, suite.tasks
                    )
                    for choice in made
                },
            )
        ],
        findings=[_finding(choice, suite.tasks) for choice in made],
    )


def _chart(choice: Choice, tasks: Sequence[str]) -> LineChart:
    """The criterion over the values by task and on average; what it chose is marked."""
    chosen, measured = choice.best(AVERAGE), choice.seeds[0]
    places = choice.numbers or range(len(choice.values))
    return LineChart(
        x_title=choice.parameter,
        y_title=choice.criterion,
        series=[
            *(Series(task, places, measured[task]) for task in tasks),
            Series(AVERAGE, places, measured[AVERAGE], colour="#000000"),
        ],
        names=() if choice.numbers else choice.values,
        marks=[Mark("chosen", "circle", [(places[chosen], measured[AVERAGE][chosen])])],
    )


def _files(suite: "Suite", root: Path) -> Mapping[str, list[Path]]:
    return {
        name: [root / paths.choice(suite.name, name, seed) for seed in suite.seeds]
        for name, method in suite.merging.items()
        if method.choose
    }


def _choices(suite: "Suite", root: Path) -> list[Choice]:
    shown_as, made = looks(suite.merging, suite.model.is_classifier), []
    for name, files in _files(suite, root).items():
        choose, criterion = suite.merging[name].choose, suite.merging[name].criterion
        if not choose or not criterion:
            continue
        tried = [_tried(file) for file in files]
        made.append(
            Choice(
                label=shown_as[name].label,
                parameter=choose.parameter,
                criterion=_CRITERIA.get(choose.by, choose.by.replace("_", " ")),
                values=tried[0][choose.parameter],
                seeds=[
                    {
                        column: list(map(float, columns[column]))
                        for column in (*suite.tasks, AVERAGE)
                    }
                    for columns in tried
                ],
                higher_is_better=criterion.better == "higher",
            )
        )
    return made


def _tried(file: Path) -> dict[str, list[str]]:
    """Its columns; of an adaptation, which tries the values under each protocol, the paper's."""
    columns = measurements.columns(file)
    protocols = columns.get("protocol", [PROTOCOLS[0]] * len(columns[AVERAGE]))
    return {
        name: [cell for cell, p in zip(cells, protocols, strict=True) if p == PROTOCOLS[0]]
        for name, cells in columns.items()
    }


def _of_seeds(suite: "Suite") -> str:
    if len(suite.seeds) == 1:
        return f"Seed {suite.seeds[0]}."
    listed = ", ".join(map(str, suite.seeds))
    return f"Seeds {listed}; where they differ, all values that are best with one of them."


def _either(values: Sequence[str]) -> str:
    """Write the values that differ, the first first: `0.1 or 0.15`."""
    return " or ".join(dict.fromkeys(values))


def _finding(choice: Choice, tasks: tuple[str, ...]) -> str:
    chosen = choice.chosen(AVERAGE)
    others = {task: choice.chosen(task) for task in tasks}
    elsewhere = [
        f"{task} ({_either(values)})"
        for task, values in others.items()
        if all(one != other for one, other in zip(values, chosen, strict=True))
    ]
    best, every = _either(chosen), " with every seed" if len(chosen) > 1 else ""
    if all(values == chosen for values in others.values()):
        return (
            f"{choice.label}: {choice.parameter} {best} is the best of the values for every task."
        )
    listed = f": {', '.join(elsewhere)}" if elsewhere else ""
    return (
        f"{choice.label}: {choice.parameter} {best} is best on average; {len(elsewhere)} of "
        f"{len(tasks)} tasks have their best elsewhere{every}{listed}."
    )
