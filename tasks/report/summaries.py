"""Mean and spread over seeds, the best of a column, and sentences about a difference."""

import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.report.content import Cell, shade
from tasks.report.rows import AVERAGE, CorruptedRow, Row


@dataclass(frozen=True)
class Scale:
    """How values of a measure are written."""

    decimals: int
    unit: str
    """After a value."""
    apart: str
    """After a difference."""

    def text(self, value: float) -> str:
        """Write a value, without the unit."""
        return f"{value:.{self.decimals}f}"


PERCENT = Scale(1, " %", " points")
NATS = Scale(2, " nats", " nats")

NOT_SHOWN = "not shown: the spread over seeds is as large"


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds of rows that differ in nothing else."""

    mean: dict[str, float]
    """By task and "average", in percent."""
    deviation: dict[str, float] | None
    """Sample standard deviation (n - 1), in points; None for a single seed."""

    @classmethod
    def of(cls, accuracies: Sequence[Mapping[str, float]]) -> "Summary":
        """Summarise at least one seed's accuracies, all with the same keys."""
        columns = {name: [seed[name] for seed in accuracies] for name in accuracies[0]}
        mean = {name: statistics.fmean(values) for name, values in columns.items()}
        if len(accuracies) == 1:
            return cls(mean, None)
        return cls(mean, {name: statistics.stdev(values) for name, values in columns.items()})


def averaged(places: Iterable[Sequence[Mapping[str, float]]]) -> Summary:
    """Summarise the mean of several places' averages; each has the accuracies of the same seeds."""
    return Summary.of(
        [
            {AVERAGE: statistics.fmean(accuracies[AVERAGE] for accuracies in of_a_seed)}
            for of_a_seed in zip(*places, strict=True)
        ]
    )


def summarise(rows: Iterable[Row], protocol: str) -> dict[str, Summary]:
    """Summarise the seeds of each method under a protocol, in the order of the rows."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if row.protocol == protocol:
            found.setdefault(row.method, []).append(row.accuracies)
    return {name: Summary.of(accuracies) for name, accuracies in found.items()}


def normalised(rows: Iterable[Row], protocol: str) -> dict[str, Summary]:
    """Summarise the share of the individual models' accuracy that each method reaches (see
    `share`), under "average".
    """
    found = [row for row in rows if row.protocol == protocol]
    whole = {row.seed: row.accuracies for row in found if row.method == "individual"}
    return summarise(
        [
            Row(row.method, protocol, row.seed, {AVERAGE: share(row.accuracies, whole[row.seed])})
            for row in found
        ],
        protocol,
    )


def share(accuracies: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Compute the mean, over the tasks of the individual models, of the share in percent that is
    reached of their accuracies; not-a-number where one of these is 0.
    """
    shares = [
        100 * accuracies[task] / own if own else math.nan
        for task, own in individual.items()
        if task != AVERAGE
    ]
    return statistics.fmean(shares)


def summarise_corrupted(rows: Iterable[CorruptedRow]) -> dict[tuple[str, int, str], Summary]:
    """Summarise the seeds of each corruption, severity and method, in the order of the rows."""
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for row in rows:
        found.setdefault((row.corruption, row.severity, row.method), []).append(row.accuracies)
    return {key: Summary.of(accuracies) for key, accuracies in found.items()}


def best_by_column(
    summaries: Mapping[str, Summary], references: Container[str]
) -> dict[str, set[str]]:
    """Find by task and "average" the merged methods with the highest mean, as shown: several where
    they are equal to one decimal.
    """
    merged = {name: summary.mean for name, summary in summaries.items() if name not in references}
    columns = next(iter(merged.values()), {})
    shown = {
        column: {name: f"{mean[column]:.1f}" for name, mean in merged.items()} for column in columns
    }
    return {
        column: {name for name, text in texts.items() if text == max(texts.values(), key=float)}
        for column, texts in shown.items()
    }


def cells(
    summary: Summary,
    beside: Iterable[Summary],
    best: Container[str] = frozenset(),
    scale: Scale = PERCENT,
) -> list[Cell]:
    """Make a row's cells; `beside` are all rows of the table, for the shade, and `best` the columns
    in which this row is.
    """
    means = [other.mean for other in beside]
    return [
        Cell(
            scale.text(value),
            spread(summary, column, scale),
            column in best,
            shade(value, [mean[column] for mean in means]),
        )
        for column, value in summary.mean.items()
    ]


def cell(summary: Summary, column: str = AVERAGE, scale: Scale = PERCENT) -> Cell:
    """Make the cell of a mean and its spread alone."""
    return Cell(scale.text(summary.mean[column]), spread(summary, column, scale))


def shown(summary: Summary, column: str = AVERAGE, scale: Scale = PERCENT) -> float:
    """Give a mean as tables show it: of percents one decimal."""
    return float(scale.text(summary.mean[column]))


def percent(summary: Summary, column: str = AVERAGE, scale: Scale = PERCENT) -> str:
    """Write a mean with its spread, if it has one: `78.1 ± 0.4 %`; another scale has no percent."""
    around = spread(summary, column, scale)
    value = scale.text(summary.mean[column])
    return f"{value}{f' ± {around}' if around else ''}{scale.unit}"


def spread(summary: Summary, column: str = AVERAGE, scale: Scale = PERCENT) -> str | None:
    """Write the spread of a mean; None for a single seed."""
    return scale.text(summary.deviation[column]) if summary.deviation else None


def apart(
    first: Summary,
    second: Summary,
    name: str,
    column: str = AVERAGE,
    scale: Scale = PERCENT,
) -> str:
    """Write how far the first is from the second, which is called `name`, in the numbers that
    tables show: `8.0 points above task arithmetic (70.1 %)`.
    """
    between = difference(first, second, column, scale)
    other = f"{name} ({percent(second, column, scale)})"
    if between == 0:
        return f"level with {other}"
    where = "above" if between > 0 else "below"
    return f"{scale.text(abs(between))}{scale.apart} {where} {other}"


def lead(
    first: Summary,
    second: Summary,
    name: str,
    column: str = AVERAGE,
    scale: Scale = PERCENT,
) -> str:
    """Write how far the first is from the second (see `apart`).

    Says that this is not shown where the spread over seeds of both together is not smaller than the
    difference.
    """
    text = apart(first, second, name, column, scale)
    level = difference(first, second, column, scale) == 0
    if level or is_shown(first, second, column, scale):
        return text
    return f"{text}, {NOT_SHOWN}"


def difference(
    first: Summary, second: Summary, column: str = AVERAGE, scale: Scale = PERCENT
) -> float:
    """Give the first minus the second, as tables show them."""
    return round(shown(first, column, scale) - shown(second, column, scale), scale.decimals)


def is_shown(
    first: Summary, second: Summary, column: str = AVERAGE, scale: Scale = PERCENT
) -> bool:
    """Tell whether a difference is larger than the spread over seeds of both together; of a single
    seed no spread is known.
    """
    if first.deviation is None or second.deviation is None:
        return True
    together = math.hypot(first.deviation[column], second.deviation[column])
    return abs(difference(first, second, column, scale)) > together


def tasks_below(first: Summary, second: Summary) -> str:
    """List the tasks on which the first is below the second: `mnist (63.2 against 77.3 %)`."""
    return ", ".join(
        f"{task} ({shown(first, task):.1f} against {shown(second, task):.1f} %)"
        for task in first.mean
        if task != AVERAGE and shown(first, task) < shown(second, task)
    )
