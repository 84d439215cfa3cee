"""Whether the entropy of a prediction stands in for its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Series
from tasks.report.content import Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.measurements import Measured
from tasks.report.results import experiment_csv
from tasks.report.summaries import NATS, PERCENT, Scale, Summary, cell, cells, lead, percent
from tasks.shared.long_tables import ACCURACY, ENTROPY
from tasks.suite.experiments.tables import (
    ADAPTED,
    ALL_TASKS,
    FINETUNED,
    LOSS,
    PRETRAINED,
    SPEARMAN,
    START,
    TENTHS,
)

if TYPE_CHECKING:
    from tasks.suite.experiments.surrogate import Surrogate
    from tasks.suite.schema import Suite

TITLE = "Entropy and loss"
QUESTION = "Does the entropy of a prediction stand in for its loss?"
FIGURES: tuple[str, ...] = ("surrogate",)
FILES: tuple[str, ...] = ("surrogate.csv",)

_RHO = Scale(2, "", "")
_PANELS = {
    PRETRAINED: "pretrained",
    FINETUNED: "fine-tuned",
    START: "start of adapting",
    ADAPTED: "adapted",
}
_MOMENTS = {
    PRETRAINED: "the pretrained model",
    FINETUNED: "fine-tuned",
    START: "start",
    ADAPTED: "end",
}


@dataclass(frozen=True)
class _Moment:
    """What was measured at a moment of a training."""

    name: str
    rho: Summary
    """By task, and of all tasks together."""
    means: Mapping[str, Summary]
    """By metric, of each task and of their mean (ALL_TASKS)."""
    tenths: Mapping[str, tuple[list[float], list[float], list[float]]]
    """By task entropy, loss, and the spread of the loss, of each tenth of the images."""


_Trainings = Mapping[str, Sequence[_Moment]]
"""By label: fine-tuning, and each adaptation."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured along fine-tuning and each adaptation; nothing without it."""
    if "surrogate" not in suite.studied:
        return []
    return [path for files in _files(suite, Path()).values() for path in files]


def _files(suite: "Suite", root: Path) -> dict[str, list[Path]]:
    """By method, or for fine-tuning by "", a file a seed."""
    items = {"": ("surrogate_finetuning", "moments")}
    items |= {name: ("surrogate", name) for name in _settings(suite).merging}
    return {
        name: [root / paths.experiment(suite.name, *item, seed) for seed in suite.seeds]
        for name, item in items.items()
    }


def _settings(suite: "Suite") -> "Surrogate":
    return cast("Surrogate", suite.studied["surrogate"])


def show(suite: "Suite", root: Path) -> Content:
    """Show the correlations by task and moment, and the loss over the entropy."""
    settings, shown_as = _settings(suite), looks(_settings(suite).merging)
    trainings = {
        shown_as[name].label if name else "Fine-tuning": _moments(suite, files)
        for name, files in _files(suite, root).items()
    }
    where = f"Measured on the first {settings.images} test images of each task. {seeds_of(suite)}"
    return Content(
        tables=[_correlations(suite, trainings, where), _means(trainings)],
        figures=[
            charted(
                name=FIGURES[0],
                title="Loss over entropy",
                text="A point is a tenth of a task's images, taken in the order of their entropy. "
                "Where lines rise, entropy tells which images have the higher loss; where one is "
                "flat or falls, or stands high at an entropy near 0, the model is sure and wrong, "
                f"and entropy misleads. {where}",
                alt="Line charts of the mean loss over the mean entropy of tenths of the images, a "
                "panel a moment and a line a task; the tables below have the correlations.",
                panels=_panels(trainings),
            )
        ],
        findings=[line for label, each in trainings.items() for line in _findings(label, each)],
        files={FILES[0]: experiment_csv(path for path in map(root.joinpath, reads(suite)))},
        made_by=commands(suite, "surrogate", FILES[0]),
    )


def _moments(suite: "Suite", files: Sequence[Path]) -> list[_Moment]:
    """Read the moments of a training, in their order."""
    tasks = suite.tasks
    rho = measurements.unrounded(files, (*tasks, ALL_TASKS), SPEARMAN)
    means = {m: measurements.unrounded(files, tasks, m) for m in (ENTROPY, LOSS, ACCURACY)}
    tenths = {
        (metric, number): measurements.unrounded(files, tasks, f"{metric}_{number}")
        for metric in (ENTROPY, LOSS)
        for number in TENTHS
    }
    return [
        _Moment(
            key[0],
            Summary.of(seeds),
            {metric: _with_mean(found[key]) for metric, found in means.items()},
            {task: _points(tenths, key, task) for task in tasks},
        )
        for key, seeds in rho.items()
    ]


def _with_mean(seeds: Sequence[Mapping[str, float]]) -> Summary:
    return Summary.of([{**seed, ALL_TASKS: fmean(seed.values())} for seed in seeds])


def _points(
    tenths: Mapping[tuple[str, int], Measured], key: tuple[str, str], task: str
) -> tuple[list[float], list[float], list[float]]:
    summaries = {place: Summary.of(found[key]) for place, found in tenths.items()}
    entropy, _ = heights((summaries[ENTROPY, number] for number in TENTHS), task)
    return entropy, *heights((summaries[LOSS, number] for number in TENTHS), task)


def _panels(trainings: _Trainings) -> dict[str, LineChart]:
    found = {}
    for label, moments in trainings.items():
        for moment in moments:
            title = _title(moment.name)
            if title in found:  # of another adaptation
                title = f"{title}: {label}"
            found[title] = LineChart(
                x_title="entropy (nats)",
                y_title="loss (nats)",
                series=[Series(task, *points) for task, points in moment.tenths.items()],
            )
    return found


def _title(moment: str) -> str:
    kind, _, share = moment.partition("_")
    return _PANELS.get(moment, f"{kind.replace('finetuning', 'fine-tuning')}, {share} %")


def _words(moment: str) -> str:
    return _MOMENTS.get(moment, f"after {moment.partition('_')[2]} % of the steps")


def _correlations(suite: "Suite", trainings: _Trainings, where: str) -> Table:
    beside = [moment.rho for moments in trainings.values() for moment in moments]
    return Table(
        name="correlations",
        title="Rank correlation of entropy and loss",
        text="Spearman's, over the images of a task, and over those of all tasks together; along "
        "fine-tuning each task has its own model. 1 says that who puts images in the order of "
        "their entropy has them in the order of their loss, 0 that entropy tells nothing of it. "
        f"The paper reports about 0.87 over samples. {where}",
        headings=("training", "moment"),
        columns=(*suite.tasks, ALL_TASKS),
        lines=[
            Line(
                (label, _words(moment.name)),
                cells(moment.rho, beside, scale=_RHO),
                last=moment is moments[-1],
            )
            for label, moments in trainings.items()
            for moment in moments
        ],
        legend="Spearman's rank correlation, from -1 to 1. The stronger a cell's tint, the higher "
        "it stands between the lowest and the highest of its column.",
        emphasised_last=True,
    )


def _means(trainings: _Trainings) -> Table:
    scales = {ENTROPY: NATS, LOSS: NATS, ACCURACY: PERCENT}

    return Table(
        name="means",
        title="Entropy, loss and accuracy",
        text="Means over the tasks. Entropy alone is what the adaptation minimises: look at "
        "whether the loss falls with it. On the images and seeds above.",
        headings=("training", "moment"),
        columns=("entropy (nats)", "loss (nats)", "accuracy (%)"),
        lines=[
            Line(
                (label, _words(moment.name)),
                [cell(moment.means[metric], ALL_TASKS, scale) for metric, scale in scales.items()],
                last=moment is moments[-1],
            )
            for label, moments in trainings.items()
            for moment in moments
        ],
    )


def _findings(label: str, moments: Sequence[_Moment]) -> list[str]:
    """Hold the last moment of a training against its first; name the task that is lowest there."""
    first, last = moments[0], moments[-1]
    start = "the pretrained model" if first.name == PRETRAINED else "its start"
    lowest = min(last.rho.mean, key=lambda task: last.rho.mean[task])
    return [
        f"{label} ends at a rank correlation of entropy and loss of "
        f"{percent(last.rho, ALL_TASKS, _RHO)} over the images of all tasks, "
        f"{lead(last.rho, first.rho, start, ALL_TASKS, _RHO)}; it is lowest on {lowest}, "
        f"{percent(last.rho, lowest, _RHO)}.",
        f"{label} ends at a mean entropy of {_end(first, last, ENTROPY, start)}, and at a mean "
        f"loss of {_end(first, last, LOSS, start)}.",
    ]


def _end(first: _Moment, last: _Moment, metric: str, start: str) -> str:
    before, after = first.means[metric], last.means[metric]
    return f"{percent(after, ALL_TASKS, NATS)}, {lead(after, before, start, ALL_TASKS, NATS)}"
