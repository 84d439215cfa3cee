"""Methods over the number of unlabeled images that they see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Series
from tasks.report.content import Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, best_by_column, cells, lead, percent
from tasks.shared.long_tables import ACCURACY

if TYPE_CHECKING:
    from tasks.suite.experiments.unlabeled import Unlabeled
    from tasks.suite.schema import Suite

TITLE = "Unlabeled images"
QUESTION = "How many unlabeled images does a method take?"
FIGURES: tuple[str, ...] = ("unlabeled",)
FILES: tuple[str, ...] = ("unlabeled.csv",)

_Amounts = Mapping[str, Summary]
"""What a method reached, by amount."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured with each amount, for every seed; nothing without the experiment."""
    if "unlabeled" not in suite.studied:
        return []
    settings = _settings(suite)
    return [
        paths.experiment(suite.name, "unlabeled", f"{name}-{amount}", seed)
        for name, method in settings.merging.items()
        for amount in settings.amounts_of(method)
        for seed in suite.seeds
    ]


def _settings(suite: "Suite") -> "Unlabeled":
    return cast("Unlabeled", suite.studied["unlabeled"])


def show(suite: "Suite", root: Path) -> Content:
    """Draw accuracy over the amounts; say what one image gives, and what all of them add."""
    settings, files = _settings(suite), [root / path for path in reads(suite)]
    measured = measurements.in_experiment(files, suite.tasks, ACCURACY)
    shown_as = looks(settings.merging)
    made: dict[str, _Amounts] = {
        shown_as[name].label: {
            amount: Summary.of(measured[amount, name]) for amount in settings.amounts_of(method)
        }
        for name, method in settings.merging.items()
    }
    where = (
        "Measured on the held-out part of the test images, of which no method sees one; the "
        "images seen are the first of the other part, without their labels, the same for every "
        f"seed. {seeds_of(suite)}"
    )
    return Content(
        tables=[_table(made, suite.tasks, where)],
        figures=[
            charted(
                name=FIGURES[0],
                title="Accuracy over the number of images",
                text="Look for where the line turns flat: images beyond that add nothing. With 0 "
                "images the coefficients are what the adaptation starts with, and a rule whose "
                "statistics are of images is not there; percents are of the images that the "
                f"held-out protocol adapts on. {where}",
                alt="A line chart of average accuracy over the number of images of each task that "
                "a method sees, a line a method; the table below has the numbers.",
                panels={"": _chart(made, settings.amounts)},
            )
        ],
        findings=[line for label, each in made.items() for line in _findings(label, each)],
        files={FILES[0]: experiment_csv(files)},
        made_by=commands(suite, "unlabeled", FILES[0]),
    )


def _chart(made: Mapping[str, _Amounts], amounts: Sequence[str]) -> LineChart:
    return LineChart(
        x_title="images of each task that the method sees",
        y_title="average top-1 accuracy (%)",
        series=[
            Series(label, [amounts.index(amount) for amount in each], *heights(each.values()))
            for label, each in made.items()
        ],
        names=[_words(amount) for amount in amounts],
    )


def _table(made: Mapping[str, _Amounts], tasks: tuple[str, ...], where: str) -> Table:
    beside = [summary for each in made.values() for summary in each.values()]
    lines = []
    for label, each in made.items():
        best = best_by_column(each, frozenset())
        for amount, summary in each.items():
            bold = {column for column, names in best.items() if amount in names}
            last = amount == list(each)[-1]
            lines.append(Line((label, _words(amount)), cells(summary, beside, bold), last=last))
    return Table(
        name="amounts",
        title="Task by task",
        text=f"A row an amount; look for tasks that few images already raise. {where}",
        headings=("method", "images of each task"),
        columns=(*tasks, AVERAGE),
        lines=lines,
        legend="Top-1 accuracy in percent. Bold is the best of a method.",
        emphasised_last=True,
    )


def _findings(label: str, each: _Amounts) -> list[str]:
    """Hold every amount against the first; the last against the one before it."""
    (first, start), *others = each.items()
    found = [
        f"{label} with {_words(amount)} of each task reaches {percent(summary)}, "
        f"{lead(summary, start, _words(first))}."
        for amount, summary in others
    ]
    if len(others) > 1:
        (few, before), (most, last) = others[-2:]
        found.append(
            f"{label} with {_words(most)} of each task is {lead(last, before, _words(few))}."
        )
    return found


def _words(amount: str) -> str:
    """Write an amount for people: `1 image`, `10 %`."""
    number, _, unit = amount.partition("_")
    if unit == "percent":
        return f"{number} %"
    return f"{number} image{'s' * (number != '1')}"
