"""What the suite's methods cost, and what they reach for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import Look, is_task_arithmetic, looks
from tasks.report.charts import Level, LineChart, Series
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    PERCENT,
    Scale,
    Summary,
    difference,
    is_shown,
    lead,
    percent,
    spread,
    summarise,
)
from tasks.suite.experiments.tables import (
    ALL_TASKS,
    BACKWARD,
    FORWARD,
    MEMORY,
    OPERATIONS,
    PARAMETERS,
    SECONDS,
)
from tasks.suite.fields import REFERENCES

if TYPE_CHECKING:
    from tasks.suite.experiments.cost import Cost
    from tasks.suite.schema import Suite

TITLE = "Cost"
QUESTION = "What does a method cost, and what does it reach for that?"
FIGURES: tuple[str, ...] = ("cost",)
FILES: tuple[str, ...] = ("cost.csv",)

_COUNT, _HUNDREDTHS = Scale(0, "", ""), Scale(2, "", "")
_SECONDS, _GIB = Scale(2, " seconds", ""), Scale(2, " GiB", "")
_COLUMNS = {
    PARAMETERS: ("learned numbers", _COUNT),
    SECONDS: ("seconds", _SECONDS),
    MEMORY: ("peak memory (GiB)", _GIB),
    FORWARD: ("images forward", _COUNT),
    BACKWARD: ("images backward", _COUNT),
    OPERATIONS: ("operations (10¹²)", _HUNDREDTHS),
}


@dataclass(frozen=True)
class _Method:
    """What a method costs, and reaches."""

    look: Look
    cost: Mapping[str, Summary]
    """By metric; its one column is ALL_TASKS."""
    accuracy: Summary

    @property
    def seconds(self) -> float:
        """As the table shows them."""
        return float(_SECONDS.text(self.cost[SECONDS].mean[ALL_TASKS]))


def reads(suite: "Suite") -> list[Path]:
    """List what each method costs and reaches, for every seed; nothing without the experiment."""
    if "cost" not in suite.studied:
        return []
    return [*_costs(suite), *_evaluations(suite, Path()).values()]


def _costs(suite: "Suite") -> list[Path]:
    return [
        paths.experiment(suite.name, "cost", name, seed)
        for name in suite.merging
        for seed in suite.seeds
    ]


def _evaluations(suite: "Suite", root: Path) -> dict[tuple[str, int], Path]:
    return {
        (name, seed): root / paths.evaluation(suite.name, name, seed)
        for name in (*suite.references, *suite.merging)
        for seed in suite.seeds
    }


def show(suite: "Suite", root: Path) -> Content:
    """Set the accuracy of each method beside its cost; say what a minute of it gains."""
    files = [root / path for path in _costs(suite)]
    rows = measurements.evaluations(_evaluations(suite, root), suite.tasks)
    accuracy = summarise(rows, PROTOCOLS[0])
    found = {metric: measurements.unrounded(files, [ALL_TASKS], metric) for metric in _COLUMNS}
    machines = list(dict.fromkeys(setting for setting, _ in found[SECONDS]))
    shown_as = looks(suite.merging)
    methods = {
        name: _Method(
            shown_as[name],
            {metric: Summary.of(_of(each, name)) for metric, each in found.items()},
            accuracy[name],
        )
        for name in suite.merging
    }
    where = f"Measured on {' and on '.join(machines)}. {seeds_of(suite)}"
    return Content(
        tables=[_table(suite, methods, where)],
        figures=[
            charted(
                name=FIGURES[0],
                title="Accuracy over time",
                text="A point is a method; the axis of time has steps of ten. To the left is what "
                "is quick, above what is accurate: a method with another to its left and above it "
                f"costs more and reaches less. Accuracy by the paper's protocol. {where}",
                alt="A chart of average accuracy over the seconds that a method takes, a point a "
                "method; the table below has the numbers.",
                panels={"": _chart(methods, {n: accuracy[n] for n in suite.references}, suite)},
            )
        ],
        findings=_findings(suite, methods),
        files={FILES[0]: experiment_csv(files)},
        made_by=commands(suite, "cost", FILES[0]),
    )


def _of(found: measurements.Measured, name: str) -> list[dict[str, float]]:
    """A method's seeds, each on the machine where it was measured."""
    return [seed for (_, method), seeds in found.items() if method == name for seed in seeds]


def _chart(
    methods: Mapping[str, _Method], references: Mapping[str, Summary], suite: "Suite"
) -> LineChart:
    shown_as = looks({}, suite.model.is_classifier)
    return LineChart(
        x_title="seconds to make the model",
        y_title="average top-1 accuracy (%)",
        x_scale="log",
        series=[
            Series(
                each.look.label,
                [each.cost[SECONDS].mean[ALL_TASKS]],
                *heights([each.accuracy]),
                colour=each.look.colour,
                line="none",
            )
            for each in methods.values()
        ],
        levels=[
            Level(shown_as[name].label, references[name].mean[AVERAGE])
            for name in REFERENCES
            if name in references
        ],
    )


def _table(suite: "Suite", methods: Mapping[str, _Method], where: str) -> Table:
    steps = cast("Cost", suite.studied["cost"]).timed_steps
    return Table(
        name="costs",
        title="Method by method",
        text="Seconds from opened models to the merged one. Those of an adaptation are its "
        f"preparation, the median of {steps} steps after one to warm up times its steps, and its "
        "merge; where a value is chosen, of all values tried, and of one measurement by the "
        "criterion times their number. Times vary from run to run and from machine to machine, "
        "and with what else the machine does: compare orders of magnitude. Memory is the most "
        "that the process held (on a GPU what was allocated there), with Python, PyTorch and all "
        "task vectors. Images are those that went through the encoder, forward and backward; a "
        "rule without data takes none. Operations are those of these passes, of products and "
        "convolutions. What was done once for all methods, such as fine-tuning and the statistics "
        f"that some rules read, is not counted. {where}",
        headings=("method", "data used"),
        columns=(*(title for title, _ in _COLUMNS.values()), "average accuracy (%)"),
        lines=[
            Line(
                (each.look.label, each.look.data),
                [
                    *(_cell(each.cost[metric], metric) for metric in _COLUMNS),
                    Cell(PERCENT.text(each.accuracy.mean[AVERAGE]), spread(each.accuracy)),
                ],
                colour=each.look.colour,
                reference=each.look.reference,
            )
            for each in methods.values()
        ],
        emphasised_last=True,
    )


def _cell(summary: Summary, metric: str) -> Cell:
    scale, unit = _COLUMNS[metric][1], 1e12 if metric == OPERATIONS else 1
    varies = metric in (SECONDS, MEMORY)
    return Cell(
        scale.text(summary.mean[ALL_TASKS] / unit),
        spread(summary, ALL_TASKS, scale) if varies else None,
    )


def _findings(suite: "Suite", methods: Mapping[str, _Method]) -> list[str]:
    """Say what each method takes and reaches, against the paper's baseline where there is one."""
    baseline = next((n for n, m in suite.merging.items() if is_task_arithmetic(m)), None)
    return [
        _of_a_method(each, methods[baseline] if baseline not in (None, name) else None)
        for name, each in methods.items()
    ]


def _of_a_method(each: _Method, baseline: _Method | None) -> str:
    count = int(each.cost[PARAMETERS].mean[ALL_TASKS])
    numbers = f" and {count} learned number{'s' * (count != 1)}" if count else ""
    text = (
        f"{each.look.label} takes {percent(each.cost[SECONDS], ALL_TASKS, _SECONDS)}, "
        f"{percent(each.cost[MEMORY], ALL_TASKS, _GIB)} of memory{numbers}, and reaches "
        f"{percent(each.accuracy)}"
    )
    if baseline is None:
        return f"{text}."
    name = baseline.look.label
    text = f"{text}, {lead(each.accuracy, baseline.accuracy, name)}"
    gained, minutes = difference(each.accuracy, baseline.accuracy), each.seconds / 60
    encodes = each.cost[FORWARD].mean[ALL_TASKS] > 0  # what does not takes no time to speak of
    if encodes and gained > 0 and is_shown(each.accuracy, baseline.accuracy):
        return f"{text}: {gained / minutes:.1f} points a minute."
    return f"{text}."
