"""How the value of a method's parameter was chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.content import Cell, Content, Figure, Line, Table
from tasks.report.figures.choice import Choice, choices
from tasks.report.rows import AVERAGE

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Choice"
QUESTION = "Does one value of a parameter suit all tasks?"
FIGURES = ("choice",)
FILES: tuple[str, ...] = ()

_CRITERIA = {
    "accuracy": "top-1 accuracy on validation images (%)",
    "entropy": "entropy on validation images (nats)",
    "agreement": "agreement with the experts on validation images (%)",
}


def reads(suite: "Suite") -> list[Path]:
    """List what the criteria gave, for the first seed."""
    return list(_files(suite, Path()).values())


def show(suite: "Suite", root: Path) -> Content:
    """Draw the criterion over the values; list what would be best for each task."""
    made = _choices(suite, root)
    where = f"Seed {suite.seeds[0]}."
    return Content(
        tables=[
            Table(
                name="best_values",
                title="The best value for each task, and on average",
                text="By the method's own criterion on validation images. The value that is best "
                f"on average is the one that the method's row in the results uses. {where}",
                headings=("method", "criterion"),
                columns=(*suite.tasks, AVERAGE),
                lines=[
                    Line(
                        (choice.label, choice.criterion),
                        [
                            Cell(choice.values[choice.best(column)])
                            for column in (*suite.tasks, AVERAGE)
                        ],
                    )
                    for choice in made
                ],
                emphasised_last=True,
            )
        ],
        figures=[
            Figure(
                name="choice",
                title="The criterion over the values tried",
                text="Look for where each task has its best: one value for all tasks is a "
                "compromise, which is why coefficients of their own help. The circle marks the "
                f"value that is best on average, which was chosen. {where}",
                alt="Line charts, one a method, of the criterion over the parameter's values by "
                "task and on average; the table below has the best values.",
                png=choices(made, suite.tasks),
            )
        ],
        findings=[_finding(choice, suite.tasks) for choice in made],
    )


def _files(suite: "Suite", root: Path) -> Mapping[str, Path]:
    return {
        name: root / paths.choice(suite.name, name, suite.seeds[0])
        for name, method in suite.merging.items()
        if method.choose
    }


def _choices(suite: "Suite", root: Path) -> list[Choice]:
    shown_as, made = looks(suite.merging), []
    for name, file in _files(suite, root).items():
        method, columns = suite.merging[name], measurements.columns(file)
        made.append(
            Choice(
                label=shown_as[name].label,
                parameter=method.choose.parameter,
                criterion=_CRITERIA.get(method.choose.by, method.choose.by),
                values=columns[method.choose.parameter],
                measured={c: [float(v) for v in columns[c]] for c in (*suite.tasks, AVERAGE)},
                higher_is_better=method.criterion.better == "higher",
            )
        )
    return made


def _finding(choice: Choice, tasks: tuple[str, ...]) -> str:
    chosen = choice.values[choice.best(AVERAGE)]
    others = {task: choice.values[choice.best(task)] for task in tasks}
    elsewhere = [f"{task} ({value})" for task, value in others.items() if value != chosen]
    if not elsewhere:
        return (
            f"{choice.label}: {choice.parameter} {chosen} is the best of the values for every task."
        )
    return (
        f"{choice.label}: {choice.parameter} {chosen} is best on average; {len(elsewhere)} of "
        f"{len(tasks)} tasks have their best elsewhere: {', '.join(elsewhere)}."
    )
