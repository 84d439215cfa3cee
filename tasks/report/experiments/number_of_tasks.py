"""Merged models over the number of tasks that they are merged from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Series
from tasks.report.content import Cell, Content, Line, Table, shade
from tasks.report.experiments.wording import charted, commands, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, apart, lead, percent, share, shown, spread
from tasks.shared.hits import read_hits
from tasks.shared.long_tables import ACCURACY

if TYPE_CHECKING:
    from tasks.suite.experiments.number_of_tasks import NumberOfTasks
    from tasks.suite.schema import Suite

TITLE = "Number of tasks"
QUESTION = "How much is lost as more tasks are merged?"
FIGURES: tuple[str, ...] = ("number_of_tasks",)
FILES: tuple[str, ...] = ("number_of_tasks.csv",)

Shares = Mapping[int, Mapping[str, Sequence[float]]]
"""Of a method, by number of tasks and subset: percent of the individual models' accuracy, by
seed."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured of each subset, and the individual models' hits, for every seed;
    nothing without the experiment.
    """
    if "number_of_tasks" not in suite.studied:
        return []
    return [*_measured(suite), *(_individual(suite, seed) for seed in suite.seeds)]


def _measured(suite: "Suite") -> list[Path]:
    drawn = _settings(suite).drawn(suite.tasks)
    return [path for subsets in drawn.values() for name in subsets for path in _of(suite, name)]


def _of(suite: "Suite", subset: str) -> list[Path]:
    return [paths.experiment(suite.name, "number_of_tasks", subset, seed) for seed in suite.seeds]


def _individual(suite: "Suite", seed: int) -> Path:
    return paths.hits(suite.name, "individual", seed)


def _settings(suite: "Suite") -> "NumberOfTasks":
    return cast("NumberOfTasks", suite.studied["number_of_tasks"])


def show(suite: "Suite", root: Path) -> Content:
    """Draw normalised accuracy over the number of tasks; say what the last tasks cost."""
    settings, made = _settings(suite), _shares(suite, root)
    labels = {name: looks(settings.merging)[name].label for name in settings.merging}
    where = (
        "Normalised accuracy is the share of the individual models' accuracy on the same images, "
        "the mean over the tasks merged, so that subsets of tasks can be compared. Subsets are "
        f"drawn at random (seed {settings.seed}), the same ones for all methods and seeds, and "
        "what adapts does so without labels on the images that are measured, the first "
        f"{settings.images} test images of each task. {seeds_of(suite)}"
    )
    over = "the spread is over subsets" + (" and seeds" if len(suite.seeds) > 1 else "")
    summaries = {name: _summaries(each) for name, each in made.items()}
    return Content(
        tables=[
            _by_count(settings, labels, summaries, f"A row a method; {over}. {where}"),
            _by_subset(suite, labels, made),
        ],
        figures=[
            charted(
                name=FIGURES[0],
                title="Normalised accuracy over the number of tasks",
                text="The steeper a line falls, the more each further task costs those that are "
                f"merged already; {over}. {where}",
                alt="A line chart of the share of the individual models' accuracy over the number "
                "of tasks merged, a line a method; the tables below have the numbers.",
                panels={"": _chart(settings, labels, summaries)},
            )
        ],
        findings=_findings(settings, labels, made, summaries),
        files={FILES[0]: experiment_csv(root / path for path in _measured(suite))},
        made_by=commands(suite, "number_of_tasks", FILES[0]),
    )


def _shares(suite: "Suite", root: Path) -> dict[str, Shares]:
    """Compute the share that each method reaches, by number of tasks, subset and seed."""
    settings = _settings(suite)
    whole = [_accuracy(root / _individual(suite, s), settings.images) for s in suite.seeds]
    found: dict[str, dict[int, dict[str, list[float]]]] = {name: {} for name in settings.merging}
    for count, subsets in settings.drawn(suite.tasks).items():
        for subset, tasks in subsets.items():
            files = [root / path for path in _of(suite, subset)]
            for (_, name), seeds in measurements.in_experiment(files, tasks, ACCURACY).items():
                found[name].setdefault(count, {})[subset] = [
                    share(measured, {task: own[task] for task in tasks})
                    for measured, own in zip(seeds, whole, strict=True)
                ]
    return dict(found)


def _accuracy(path: Path, images: int) -> dict[str, float]:
    """The individual models' accuracies on the first images in percent, by task."""
    hits = read_hits(path)
    return {
        task: 100 * float(each[:images].mean())
        for (protocol, task), each in hits.items()
        if protocol == PROTOCOLS[0]
    }


def _summaries(shares: Shares) -> dict[int, Summary]:
    """Summarise subsets and seeds together, by number of tasks."""
    return {
        count: Summary.of([{AVERAGE: one} for seeds in each.values() for one in seeds])
        for count, each in shares.items()
    }


def _chart(
    settings: "NumberOfTasks",
    labels: Mapping[str, str],
    summaries: Mapping[str, Mapping[int, Summary]],
) -> LineChart:
    colours = looks(settings.merging)
    return LineChart(
        x_title="number of tasks merged",
        y_title="normalised accuracy (%)",
        series=[
            Series(
                labels[name],
                list(reached),
                [each.mean[AVERAGE] for each in reached.values()],
                [each.deviation[AVERAGE] if each.deviation else 0 for each in reached.values()],
                colour=colours[name].colour,
            )
            for name, reached in summaries.items()
        ],
    )


def _by_count(
    settings: "NumberOfTasks",
    labels: Mapping[str, str],
    summaries: Mapping[str, Mapping[int, Summary]],
    text: str,
) -> Table:
    counts = sorted(settings.counts)
    beside = [s.mean[AVERAGE] for each in summaries.values() for s in each.values()]
    best = {count: max(shown(each[count]) for each in summaries.values()) for count in counts}
    return Table(
        name="counts",
        title="By number of tasks",
        text=text,
        headings=("method",),
        columns=tuple(f"{count} tasks" for count in counts),
        lines=[
            Line(
                (labels[name],),
                [
                    Cell(
                        f"{shown(each[count]):.1f}",
                        spread(each[count]),
                        shown(each[count]) == best[count],
                        shade(each[count].mean[AVERAGE], beside),
                    )
                    for count in counts
                ],
                colour=looks(settings.merging)[name].colour,
            )
            for name, each in summaries.items()
        ],
        legend="Normalised accuracy in percent. Bold is the best of a column.",
    )


def _by_subset(suite: "Suite", labels: Mapping[str, str], made: Mapping[str, Shares]) -> Table:
    drawn = _settings(suite).drawn(suite.tasks)
    rows = {
        (count, subset): [
            Summary.of([{AVERAGE: one} for one in made[name][count][subset]]) for name in labels
        ]
        for count, subsets in drawn.items()
        for subset in subsets
    }
    return Table(
        name="subsets",
        title="The subsets",
        text="Which tasks were merged, and what each method kept. On the images above.",
        headings=("tasks", "which"),
        columns=tuple(labels.values()),
        lines=[
            Line(
                (str(count), ", ".join(drawn[count][subset])),
                [Cell(f"{shown(each):.1f}", spread(each)) for each in row],
            )
            for (count, subset), row in rows.items()
        ],
        legend="Normalised accuracy in percent.",
    )


def _findings(
    settings: "NumberOfTasks",
    labels: Mapping[str, str],
    made: Mapping[str, Shares],
    summaries: Mapping[str, Mapping[int, Summary]],
) -> list[str]:
    """Hold the most tasks against the fewest, and what adapts against each rule."""
    few, *_, many = sorted(settings.counts)
    found = [
        f"{labels[name]} keeps {percent(each[few])} of the individual models' accuracy with {few} "
        f"tasks and {percent(each[many])} with {many}, "
        f"{lead(each[many], each[few], f'{few} tasks')}."
        for name, each in summaries.items()
    ]
    adapted = [name for name, method in settings.merging.items() if method.adapts]
    return found + [
        f"With {count} tasks {labels[name]} keeps {percent(summaries[name][count])}, "
        f"{_gap(made, summaries, (name, other), count, labels[other])}."
        for name in adapted
        for other in settings.merging
        if other not in adapted
        for count in (few, many)
    ]


def _gap(
    made: Mapping[str, Shares],
    summaries: Mapping[str, Mapping[int, Summary]],
    pair: tuple[str, str],
    count: int,
    label: str,
) -> str:
    """Say how far one method is from another on the same subsets, and whether that is shown."""
    one, other = ([s for seeds in made[n][count].values() for s in seeds] for n in pair)
    gaps = [first - second for first, second in zip(one, other, strict=True)]
    text = apart(summaries[pair[0]][count], summaries[pair[1]][count], label)
    if len(gaps) == 1 or abs(fmean(gaps)) > stdev(gaps):
        return text
    return f"{text}, not shown: over the subsets the difference varies as much"
