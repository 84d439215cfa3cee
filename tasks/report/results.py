"""The numbers that a suite ended with: the files of its report that programs read.

Accuracies are top-1, in percent, rounded to the two decimals that results.csv holds, so that every
table shows the same numbers. Nothing here imports torch.
"""

import csv
import io
import json
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.escapes import in_markdown
from tasks.report.rows import AVERAGE, CorruptedRow, Row
from tasks.report.summaries import Summary, best_by_column, summarise
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, read_long
from tasks.suite.fields import REFERENCES

RESULTS_CSV, CORRUPTED_CSV, METHODS_JSON = "results.csv", "corrupted.csv", "methods.json"

_NAMES = ("method", "protocol", "seed")
_CORRUPTED_NAMES = ("corruption", "severity", "method", "seed")

_PROTOCOLS = {
    "transductive": "the paper's: adapted and measured on the same unlabeled test images",
    "held_out": "adapted on one part of the test images, measured on the other",
}


# --- reading ------------------------------------------------------------------------------------


def read(suite: str) -> list[Row]:
    """Read the rows of a suite's results.csv in its order; none where it does not exist."""
    path = paths.report(suite) / RESULTS_CSV
    return read_rows(path) if path.is_file() else []


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a results.csv, whatever its file is called."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> Row:
    accuracies = {name: float(value) for name, value in line.items() if name not in _NAMES}
    return Row(line["method"], line["protocol"], int(line["seed"]), accuracies)


def references(suite: str) -> frozenset[str]:
    """Name the rows that no merged model competes with: the three references, and the methods that
    learned from the true labels of test images, as the suite's methods.json says.
    """
    path = paths.report(suite) / METHODS_JSON
    methods = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    supervised = [name for name, method in methods.items() if method["reference"]]
    return frozenset(REFERENCES).union(supervised)


# --- writing ------------------------------------------------------------------------------------


def results_csv(rows: Iterable[Row], task_names: Sequence[str]) -> str:
    """Write results.csv: method, protocol, seed, one column a task, average; percent, two
    decimals.
    """
    lines = [(row.method, row.protocol, row.seed, row.accuracies) for row in rows]
    return _csv(_NAMES, lines, task_names)


def corrupted_csv(rows: Iterable[CorruptedRow], task_names: Sequence[str]) -> str:
    """Write corrupted.csv: corruption, severity, method, seed, one column a task, average."""
    lines = [(row.corruption, row.severity, row.method, row.seed, row.accuracies) for row in rows]
    return _csv(_CORRUPTED_NAMES, lines, task_names)


def _csv(names: Sequence[str], lines: Iterable[tuple[Any, ...]], task_names: Sequence[str]) -> str:
    columns = [*task_names, AVERAGE]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *columns])
    for *values, accuracies in lines:
        writer.writerow([*values, *(f"{accuracies[column]:.2f}" for column in columns)])
    return text.getvalue()


def experiment_csv(files: Iterable[Path]) -> str:
    """Write what an experiment measured: setting, method, seed, task, metric, value; values have
    four decimals.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, MEASURED_IN_EXPERIMENT, lineterminator="\n")
    writer.writeheader()
    for path in files:
        for row in read_long(path, MEASURED_IN_EXPERIMENT):
            writer.writerow({**row, "value": f"{row['value']:.4f}"})
    return text.getvalue()


# --- in a terminal --------------------------------------------------------------------------------


def text_table(rows: Sequence[Row], references: Container[str]) -> str:
    """Write a table of methods by tasks for each protocol.

    Percent; mean ± sample standard deviation where there are several seeds; * marks the best merged
    methods of a column. Empty text for no rows.
    """
    tables = [
        _text_table(summarise(rows, protocol), protocol, references) for protocol in PROTOCOLS
    ]
    return "\n\n".join(table for table in tables if table)


def _text_table(summaries: Mapping[str, Summary], protocol: str, references: Container[str]) -> str:
    if not summaries:
        return ""
    columns = list(next(iter(summaries.values())).mean)
    best = best_by_column(summaries, references)
    lines = [["method", *(f"{column} " for column in columns)]]
    for method, summary in summaries.items():
        marks = ["*" if method in best.get(column, ()) else " " for column in columns]
        cells = [f"{_cell(summary, c)}{mark}" for c, mark in zip(columns, marks, strict=True)]
        lines.append([method, *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    table = [_line(cells, widths) for cells in lines]
    rule = "-" * max(map(len, table))
    deviations = any(summary.deviation for summary in summaries.values())
    spread = ", mean ± standard deviation over seeds" if deviations else ""
    title = f"{protocol} ({_PROTOCOLS[protocol]})"
    legend = f"top-1 accuracy in percent{spread}; * best merged model of a column"
    return "\n".join([title, rule, table[0], rule, *table[1:], rule, legend])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *values = cells
    right = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *right]).rstrip()


def _cell(summary: Summary, column: str) -> str:
    spread = f" ±{summary.deviation[column]:.1f}" if summary.deviation else ""
    return f"{summary.mean[column]:.1f}{spread}"


def markdown_table(
    averages: Mapping[tuple[str, str], float], before: Mapping[tuple[str, str], float]
) -> str:
    """Write a table of methods by protocols in Markdown, with the change since the averages
    `before`, both by protocol and method; empty for no averages.
    """
    methods = list(dict.fromkeys(method for _, method in averages))
    rows = [
        f"| {in_markdown(method)} | "
        + " | ".join(_average((protocol, method), averages, before) for protocol in PROTOCOLS)
        + " |"
        for method in methods
    ]
    heading = (
        f"| average over tasks, % | {' | '.join(PROTOCOLS)} |\n|---|{'---:|' * len(PROTOCOLS)}"
    )
    return "\n".join([heading, *rows]) if rows else ""


def _average(
    key: tuple[str, str],
    averages: Mapping[tuple[str, str], float],
    before: Mapping[tuple[str, str], float],
) -> str:
    if key not in averages:
        return ""
    if key not in before:
        return f"{averages[key]:.2f}"
    change = round(averages[key] - before[key], 2)
    return f"{averages[key]:.2f} ({f'{change:+.2f}' if change else 'same'})"


# --- the best -------------------------------------------------------------------------------------


def averages(rows: list[Row]) -> dict[tuple[str, str], float]:
    """Average each method's averages over seeds, by protocol and method."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        grouped.setdefault((row.protocol, row.method), []).append(row.average)
    return {key: statistics.mean(values) for key, values in grouped.items()}


def best_merged(rows: list[Row], references: Container[str]) -> Row | None:
    """Find the merged method with the highest held-out average over the seeds: its row of the first
    seed. Not that of its best seed, which the same images would have chosen.
    """
    held_out = PROTOCOLS[1]
    means = {
        method: mean
        for (protocol, method), mean in averages(rows).items()
        if protocol == held_out and method not in references
    }
    best = max(means, key=means.__getitem__, default=None)
    return next((r for r in rows if (r.method, r.protocol) == (best, held_out)), None)
