"""What labels would add to adaptations, and how much of it entropy has without them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    Summary,
    best_by_column,
    cells,
    difference,
    is_shown,
    lead,
    percent,
)
from tasks.shared.long_tables import ACCURACY
from tasks.suite.experiments.tables import ENTROPY_OBJECTIVE, LEARNED, START

if TYPE_CHECKING:
    from tasks.suite.experiments.labels import Labels
    from tasks.suite.schema import Suite

TITLE = "With labels and without"
QUESTION = "What would labels add to an adaptation?"
FIGURES: tuple[str, ...] = ("labels",)
FILES: tuple[str, ...] = ("labels.csv",)

_WORDS = {
    ENTROPY_OBJECTIVE: "entropy",
    "self_labelling": "experts' labels",
    "cross_entropy": "true labels",
}
_NOT_ADAPTED = "nothing (its start)"


@dataclass(frozen=True)
class _Comparison:
    """Adaptations that differ in their objective alone."""

    label: str
    """Of the one that minimises entropy."""
    colour: str | None
    start: Summary
    learned: Mapping[str, Summary]
    """By objective, entropy first."""
    supervised: frozenset[str]
    """The objectives that take the true labels."""

    @property
    def rows(self) -> dict[str, Summary]:
        """By what was learned from."""
        words = {_WORDS.get(name, name.replace("_", " ")): s for name, s in self.learned.items()}
        return {_NOT_ADAPTED: self.start, **words}


def reads(suite: "Suite") -> list[Path]:
    """List what was measured of each adaptation, for every seed; nothing without the experiment."""
    if "labels" not in suite.studied:
        return []
    return [
        paths.experiment(suite.name, "labels", name, seed)
        for name in _settings(suite).merging
        for seed in suite.seeds
    ]


def _settings(suite: "Suite") -> "Labels":
    return cast("Labels", suite.studied["labels"])


def show(suite: "Suite", root: Path) -> Content:
    """Make a line and rows a comparison; say what entropy has of what labels give."""
    files = [root / path for path in reads(suite)]
    compared = _compared(suite, files)
    where = (
        "Learned on one part of the test images and measured on the other, which none has seen: "
        "with labels of the images measured it would be training on the test. Measured part: "
        f"{100 * suite.evaluate.held_out_fraction:g} % of the test images. {seeds_of(suite)}"
    )
    return Content(
        tables=[_table(suite, compared, where)],
        figures=[
            charted(
                name=FIGURES[0],
                title="By what is learned from",
                text="To the left is the merge that the adaptations start with, to the right what "
                "true labels of the same images reach. Look at how much of the way entropy goes "
                f"without them. {where}",
                alt="A chart of average accuracy over what is learned from, a line a kind of "
                "adaptation; the table below has the numbers.",
                panels={"": _chart(compared)},
            )
        ],
        findings=[line for each in compared for line in _findings(each)],
        files={FILES[0]: experiment_csv(files)},
        made_by=commands(suite, "labels", FILES[0]),
    )


def _compared(suite: "Suite", files: list[Path]) -> list[_Comparison]:
    settings = _settings(suite)
    found = measurements.in_experiment(files, suite.tasks, ACCURACY)
    shown_as, methods = looks(settings.merging), settings.adaptations
    return [
        _Comparison(
            shown_as[first].label,
            shown_as[first].colour,
            Summary.of(found[START, first]),
            {
                methods[name].settings.objective: Summary.of(found[LEARNED, name])
                for name in (first, *others)
            },
            frozenset(
                methods[name].settings.objective for name in others if methods[name].supervised
            ),
        )
        for first, others in settings.groups.items()
    ]


def _chart(compared: list[_Comparison]) -> LineChart:
    names = list(dict.fromkeys(words for each in compared for words in each.rows))
    return LineChart(
        x_title="learned from",
        y_title="average top-1 accuracy (%)",
        series=[
            Series(
                each.label,
                [names.index(words) for words in each.rows],
                *heights(each.rows.values()),
                colour=each.colour,
                line="dashed",
            )
            for each in compared
        ],
        names=names,
    )


def _table(suite: "Suite", compared: list[_Comparison], where: str) -> Table:
    beside = [summary for each in compared for summary in each.rows.values()]
    lines = []
    for each in compared:
        best = best_by_column(each.rows, frozenset())
        for words, summary in each.rows.items():
            bold = {column for column, names in best.items() if words in names}
            last = words == list(each.rows)[-1]
            *of_tasks, average = cells(summary, beside, bold)
            gain = Cell(f"{difference(summary, each.start):+.1f}")
            lines.append(Line((each.label, words), [*of_tasks, gain, average], last=last))
    return Table(
        name="objectives",
        title="Task by task",
        text="The rows of a group have the same start, steps and images, and differ in what they "
        "learn from. The experts are the tasks' own fine-tuned models, whose predictions take the "
        f"place of labels. {where}",
        headings=("adaptation", "learned from"),
        columns=(*suite.tasks, "over the start", AVERAGE),
        lines=lines,
        legend="Top-1 accuracy in percent, over the start in points of the average. Bold is the "
        "best of a group.",
        emphasised_last=True,
    )


def _findings(each: _Comparison) -> list[str]:
    entropy = each.learned[ENTROPY_OBJECTIVE]
    found = [
        f"{each.label} reaches {percent(entropy)} by entropy, "
        f"{lead(entropy, each.start, 'its start')}."
    ]
    for objective, summary in each.learned.items():
        if objective == ENTROPY_OBJECTIVE:
            continue
        by = _WORDS.get(objective, objective.replace("_", " "))
        found.append(
            f"{each.label} by {by} in its place reaches {percent(summary)}, "
            f"{lead(summary, entropy, 'entropy')}."
        )
        if objective in each.supervised:
            found.append(_share_of_the_gap(each, by, summary))
    return found


def _share_of_the_gap(each: _Comparison, by: str, labels: Summary) -> str:
    """Say how much of what labels add to the start entropy has without them."""
    gap, gained = (
        difference(labels, each.start),
        difference(each.learned[ENTROPY_OBJECTIVE], each.start),
    )
    if gap <= 0 or not is_shown(labels, each.start):
        return f"{each.label}: that {by} add anything to its start is not shown."
    return (
        f"{each.label} by entropy gains {gained:.1f} of the {gap:.1f} points that {by} add to its "
        f"start: {100 * gained / gap:.0f} %."
    )
