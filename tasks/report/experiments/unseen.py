"""Merged models on tasks that were left out of the merge."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import BarChart, Bars
from tasks.report.content import Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, best_by_column, cells, lead, percent
from tasks.shared.long_tables import ACCURACY

if TYPE_CHECKING:
    from tasks.suite.experiments.unseen import Unseen
    from tasks.suite.schema import Suite

TITLE = "Unseen tasks"
QUESTION = "What does a merged model do on tasks that it was not merged from?"
FIGURES: tuple[str, ...] = ("unseen",)
FILES: tuple[str, ...] = ("unseen.csv",)

_Rows = Mapping[str, Summary]
"""What methods reached, by label, the pretrained model first."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured of each split, for every seed; nothing without the experiment."""
    if "unseen" not in suite.studied:
        return []
    return [path for split in _settings(suite).splits for path in _of(suite, split)]


def _of(suite: "Suite", split: str) -> list[Path]:
    return [paths.experiment(suite.name, "unseen", split, seed) for seed in suite.seeds]


def _settings(suite: "Suite") -> "Unseen":
    return cast("Unseen", suite.studied["unseen"])


def show(suite: "Suite", root: Path) -> Content:
    """Make a table a split of the tasks left out; hold each method against the pretrained model."""
    settings = _settings(suite)
    made = {split: _rows(suite, root, split, settings.splits[split]) for split in settings.splits}
    return Content(
        tables=[_table(suite, split, settings.splits[split], rows) for split, rows in made.items()],
        figures=[
            charted(
                name=FIGURES[0],
                title="On the tasks left out",
                text="Bars of a group are methods. A bar below the pretrained model's says that "
                "merging cost something on tasks it knew nothing of, one above it that the other "
                f"tasks helped. {seeds_of(suite)}",
                alt="A bar chart of average accuracy on the tasks left out, a group a split and a "
                "bar a method; the tables below have the numbers.",
                panels={"": _chart(made)},
            )
        ],
        findings=[
            line for split, rows in made.items() for line in _findings(settings.splits[split], rows)
        ],
        files={FILES[0]: experiment_csv(root / path for path in reads(suite))},
        made_by=commands(suite, "unseen", FILES[0]),
    )


def _rows(suite: "Suite", root: Path, split: str, tasks: tuple[str, ...]) -> _Rows:
    """Summarise a split on the tasks left out, whose mean is the average."""
    files = [root / path for path in _of(suite, split)]
    found = measurements.in_experiment(files, tasks, ACCURACY)
    shown_as = looks(_settings(suite).merging, suite.model.is_classifier)
    return {shown_as[method].label: Summary.of(values) for (_, method), values in found.items()}


def _chart(made: Mapping[str, _Rows]) -> BarChart:
    labels = next(iter(made.values()))
    return BarChart(
        y_title="average accuracy on the tasks left out (%)",
        groups=list(made),
        bars=[Bars(each, *heights(rows[each] for rows in made.values())) for each in labels],
    )


def _table(suite: "Suite", split: str, tasks: tuple[str, ...], rows: _Rows) -> Table:
    best = best_by_column(rows, frozenset())
    merged = [task for task in suite.tasks if task not in tasks]
    return Table(
        name=f"split_{split}",
        title=f"Left out: {', '.join(tasks)}",
        text=f"Merged are {', '.join(merged)}; what adapts learns on their test images alone. "
        "Measured on all test images of the tasks left out, with their own heads. "
        f"{seeds_of(suite)}",
        headings=("method",),
        columns=(*tasks, AVERAGE),
        lines=[
            Line(
                (label,),
                cells(each, rows.values(), {c for c, names in best.items() if label in names}),
            )
            for label, each in rows.items()
        ],
        legend="Top-1 accuracy in percent. Bold is the best of a column.",
        emphasised_last=True,
    )


def _findings(tasks: tuple[str, ...], rows: _Rows) -> list[str]:
    """Hold each method against the pretrained model on the tasks left out."""
    (name, pretrained), *others = rows.items()
    return [
        f"On what is left out ({', '.join(tasks)}), {label} reaches {percent(each)}, "
        f"{lead(each, pretrained, name)}."
        for label, each in others
    ]
