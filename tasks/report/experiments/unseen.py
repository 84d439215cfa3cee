"""Merged models on tasks that were left out of the merge."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import BarChart, Bars, HeatMap, Panels
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, averaged, best_by_column, cells, lead, percent, shown
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

_Seeds = Mapping[str, list[dict[str, float]]]
"""The same, seed by seed."""

_Pairs = Mapping[tuple[str, str], _Seeds]
"""The same, by the two tasks that were left out."""


def reads(suite: "Suite") -> list[Path]:
    """List what was measured of each split, for every seed; nothing without the experiment."""
    if "unseen" not in suite.studied:
        return []
    settings = _settings(suite)
    pairs = (f"pair-{pair}" for pair in settings.pairs_of(suite.tasks))
    return [path for item in (*settings.splits, *pairs) for path in _of(suite, item)]


def _of(suite: "Suite", split: str) -> list[Path]:
    return [paths.experiment(suite.name, "unseen", split, seed) for seed in suite.seeds]


def _settings(suite: "Suite") -> "Unseen":
    return cast("Unseen", suite.studied["unseen"])


def show(suite: "Suite", root: Path) -> Content:
    """Make a table a split of the tasks left out; hold each method against the pretrained model."""
    settings = _settings(suite)
    made = {split: _rows(suite, root, split, settings.splits[split]) for split in settings.splits}
    pairs = {
        tasks: _measured(suite, root, f"pair-{name}", tasks)
        for name, tasks in settings.pairs_of(suite.tasks).items()
    }
    return Content(
        tables=[
            *(_table(suite, split, settings.splits[split], rows) for split, rows in made.items()),
            *([_pairs_table(suite, pairs)] if pairs else []),
        ],
        figures=[
            charted(
                name=FIGURES[0],
                title="On the tasks left out",
                text="Bars of a group are methods. A bar below the pretrained model's says that "
                "merging cost something on tasks it knew nothing of, one above it that the other "
                "tasks helped. Where every pair is left out, a matrix a method has by how many "
                "points it is above the pretrained model on a pair, in red, or below it, in blue. "
                f"{seeds_of(suite)}",
                alt="A bar chart of average accuracy on the tasks left out, a group a split and a "
                "bar a method, and matrices of the distance from the pretrained model by pair; the "
                "tables below have the numbers.",
                panels={"Splits": _chart(made), **_matrices(suite.tasks, pairs)},
            )
        ],
        findings=[
            *(
                line
                for split, rows in made.items()
                for line in _findings(suite, settings.splits[split], rows)
            ),
            *_findings_of_pairs(suite, pairs),
        ],
        files={FILES[0]: experiment_csv(root / path for path in reads(suite))},
        made_by=commands(suite, "unseen", FILES[0]),
    )


def _rows(suite: "Suite", root: Path, split: str, tasks: tuple[str, ...]) -> _Rows:
    """Summarise a split on the tasks left out, whose mean is the average."""
    measured = _measured(suite, root, split, tasks)
    return {label: Summary.of(seeds) for label, seeds in measured.items()}


def _measured(suite: "Suite", root: Path, item: str, tasks: tuple[str, ...]) -> _Seeds:
    files = [root / path for path in _of(suite, item)]
    found = measurements.in_experiment(files, tasks, ACCURACY)
    shown_as = looks(_settings(suite).merging, suite.model.is_classifier)
    return {shown_as[method].label: seeds for (_, method), seeds in found.items()}


def _chart(made: Mapping[str, _Rows]) -> BarChart:
    labels = next(iter(made.values()))
    return BarChart(
        y_title="average accuracy on the tasks left out (%)",
        groups=list(made),
        bars=[Bars(each, *heights(rows[each] for rows in made.values())) for each in labels],
    )


def _matrices(tasks: Sequence[str], pairs: _Pairs) -> Panels:
    """Draw by method how far it is from the pretrained model on each pair, all in the same colours:
    those of what is above it part from those of what is below.
    """
    distances = {
        label: [
            [_distance(pairs, label, frozenset({one, other})) for other in tasks] for one in tasks
        ]
        for label in list(next(iter(pairs.values()), {}))[1:]
    }
    known = [abs(v) for rows in distances.values() for row in rows for v in row if not isnan(v)]
    furthest = max(known, default=0.0) or 1.0
    return {
        label: HeatMap(
            rows=tasks,
            columns=tasks,
            values=values,
            scale_title="points from the pretrained model",
            limits=(-furthest, furthest),
            diverging=True,
        )
        for label, values in distances.items()
    }


def _distance(pairs: _Pairs, label: str, pair: frozenset[str]) -> float:
    for tasks, methods in pairs.items():
        if pair == frozenset(tasks):
            return _points(methods, label)
    return nan


def _points(methods: _Seeds, label: str) -> float:
    """By how many points a method is above the first."""
    first = next(iter(methods.values()))
    return shown(Summary.of(methods[label])) - shown(Summary.of(first))


def _over_pairs(pairs: _Pairs) -> dict[str, tuple[Summary, int]]:
    """Summarise each method over all pairs, and count those on which it is above the first."""
    return {
        label: (
            averaged(methods[label] for methods in pairs.values()),
            sum(_points(methods, label) > 0 for methods in pairs.values()),
        )
        for label in next(iter(pairs.values()))
    }


def _pairs_table(suite: "Suite", pairs: _Pairs) -> Table:
    over = _over_pairs(pairs)
    return Table(
        name="pairs",
        title="Every pair left out",
        text=f"Averages over the {len(pairs)} pairs of tasks; each pair is left out in turn, the "
        f"others are merged. {seeds_of(suite)}",
        headings=("method",),
        columns=("pairs above the pretrained model", AVERAGE),
        lines=[
            Line((label,), [Cell(str(above)), *cells(summary, [s for s, _ in over.values()])])
            for label, (summary, above) in over.items()
        ],
        legend="Top-1 accuracy in percent.",
    )


def _findings_of_pairs(suite: "Suite", pairs: _Pairs) -> list[str]:
    if not pairs:
        return []
    over = _over_pairs(pairs)
    rows = {label: summary for label, (summary, _) in over.items()}
    (name, (pretrained, _)), *others = over.items()
    return [
        f"Over all {len(pairs)} pairs left out, {label} reaches {percent(summary)}, "
        f"{lead(summary, pretrained, name)}; it is above it on {above} of them"
        f"{_beside_rules(suite, label, rows)}."
        for label, (summary, above) in others
    ]


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


def _findings(suite: "Suite", tasks: tuple[str, ...], rows: _Rows) -> list[str]:
    """Hold each method against the pretrained model on the tasks left out."""
    (name, pretrained), *others = rows.items()
    return [
        f"On what is left out ({', '.join(tasks)}), {label} reaches {percent(each)}, "
        f"{lead(each, pretrained, name)}{_beside_rules(suite, label, rows)}."
        for label, each in others
    ]


def _beside_rules(suite: "Suite", label: str, rows: _Rows) -> str:
    """Hold a method that adapts against each rule; nothing of a rule."""
    merging = _settings(suite).merging
    shown_as = looks(merging, suite.model.is_classifier)
    adapts = {shown_as[name].label: method.adapts for name, method in merging.items()}
    if not adapts[label]:
        return ""
    rules = [each for each in adapts if not adapts[each]]
    return "".join(f"; it is {lead(rows[label], rows[each], each)}" for each in rules)
