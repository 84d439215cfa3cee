"""The numbers that a suite ended with: read from its metrics files, or from its results.csv.

Accuracies are top-1, in percent, rounded to the two decimals that results.csv holds, so that every
table shows the same numbers. Nothing here imports torch.
"""

import csv
import io
import json
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph.paths import PROTOCOLS, REFERENCES, Files
from tasks.suite.rules import objectives, presets

METHODS = {
    "pretrained": "Zero-shot (pretrained)",
    "individual": "Individual models",
    "traditional_mtl": "Traditional MTL",
    "weight_averaging": "Weight averaging",
    "fisher_merging": "Fisher merging",
    "regmean": "RegMean",
    "task_arithmetic": "Task arithmetic",
    "ties_merging": "Ties-Merging",
    "dare": "DARE",
    "breadcrumbs": "Model Breadcrumbs",
    "consensus": "Consensus (TALL masks)",
    "lines": "LiNeS",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
    "wudi": "WUDI",
    "task_wise_adamerging": "Task-wise AdaMerging",
    "task_wise_adamerging_pp": "Task-wise AdaMerging++",
    "layer_wise_adamerging": "Layer-wise AdaMerging",
    "layer_wise_adamerging_pp": "Layer-wise AdaMerging++",
    "layer_wise_self_labelling": "Layer-wise, self-labelling",
    "layer_wise_tsv": "Layer-wise over TSV",
    "layer_wise_tsv_self_labelling": "Layer-wise over TSV, self-labelling",
    "layer_wise_supervised": "Layer-wise, true labels",
    "adarank": "AdaRank",
}
"""The names for people that differ from a method's own."""


def label(method: str) -> str:
    """A method's name for people."""
    if method not in METHODS and method.endswith("_best"):
        return f"{label(method.removesuffix('_best'))}, best scaling"
    return METHODS.get(method, method.replace("_", " "))


def references(merge: Mapping[str, Any]) -> frozenset[str]:
    """The rows that no merged model competes with: the three references, and the adaptations that
    learn from the true labels of the test images. `merge` is the section of a suite, as its file
    has it.
    """
    return frozenset(REFERENCES) | {
        method
        for method, entry in merge.items()
        if isinstance(entry, Mapping) and _needs(entry) == "labels"
    }


def _needs(entry: Mapping[str, Any]) -> str | None:
    """What the objective of a method's entry needs; None for a method without one."""
    preset = presets().get(str(entry.get("preset")), {})
    objective = objectives().get(str(entry.get("objective") or preset.get("objective")))
    return objective.needs if objective else None


AVERAGE = "average"

_PROTOCOLS = {
    "transductive": "the paper's: adapted and measured on the same unlabeled test images",
    "held_out": "adapted on one part of the test images, measured on the other",
}
_NAMES = ("method", "protocol", "seed")
_CORRUPTED_NAMES = ("corruption", "severity", "method", "seed")


@dataclass(frozen=True)
class Row:
    """Top-1 accuracies in percent, by task and "average", of a method under a protocol for a
    seed.
    """

    method: str
    protocol: str
    seed: int
    accuracies: dict[str, float]

    @property
    def average(self) -> float:
        return self.accuracies[AVERAGE]


@dataclass(frozen=True)
class CorruptedRow:
    """Accuracies of a method that was adapted and measured under a corruption, for a seed."""

    corruption: str
    """`clean` for the same images without one."""
    severity: int
    """1 to 5; 0 for clean."""
    method: str
    seed: int
    accuracies: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds of rows that differ in nothing else."""

    mean: dict[str, float]
    """By task and "average", in percent."""
    deviation: dict[str, float] | None
    """Sample standard deviation (n - 1), in points; None for a single seed."""

    @classmethod
    def of(cls, accuracies: Sequence[Mapping[str, float]]) -> "Summary":
        """Of at least one seed's accuracies, all with the same keys."""
        columns = {name: [seed[name] for seed in accuracies] for name in accuracies[0]}
        mean = {name: statistics.fmean(values) for name, values in columns.items()}
        if len(accuracies) == 1:
            return cls(mean, None)
        return cls(mean, {name: statistics.stdev(values) for name, values in columns.items()})


def summarise(rows: Iterable[Row], protocol: str) -> dict[str, Summary]:
    """Over the seeds of each method under a protocol, in the order of the rows."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if row.protocol == protocol:
            found.setdefault(row.method, []).append(row.accuracies)
    return {name: Summary.of(accuracies) for name, accuracies in found.items()}


def summarise_corrupted(rows: Iterable[CorruptedRow]) -> dict[tuple[str, int, str], Summary]:
    """Over the seeds of each corruption, severity and method, in the order of the rows."""
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for row in rows:
        found.setdefault((row.corruption, row.severity, row.method), []).append(row.accuracies)
    return {key: Summary.of(accuracies) for key, accuracies in found.items()}


def best_by_column(
    summaries: Mapping[str, Summary], references: Container[str]
) -> dict[str, set[str]]:
    """By task and "average" the merged methods with the highest mean, as shown: several if equal to
    one decimal.
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


# --- reading ------------------------------------------------------------------------------------


def read(suite: str) -> list[Row]:
    """The rows of data/<suite>/report/results.csv in its order; none where it does not exist."""
    path = Files(suite).report / "results.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> Row:
    accuracies = {name: float(value) for name, value in line.items() if name not in _NAMES}
    return Row(line["method"], line["protocol"], int(line["seed"]), accuracies)


def read_evaluations(paths: Mapping[tuple[str, int], Path], task_names: Sequence[str]) -> list[Row]:
    """The rows of the evaluation stages' files, by method and seed; by method, protocol, seed, in
    the order of the files.

    Raises one InputError that lists all that is missing in them.
    """
    columns, faults = [*task_names, AVERAGE], []
    contents = {key: _json(path) for key, path in paths.items()}
    for key, content in contents.items():
        for protocol in PROTOCOLS:
            measured = content.get("protocols", {}).get(protocol, {})
            faults += [
                f"{paths[key]}: no accuracy of {column}, protocol {protocol}"
                for column in columns
                if column not in measured
            ]
    _complain(faults)
    rows = [
        Row(method, protocol, seed, _accuracies(content["protocols"][protocol], columns))
        for (method, seed), content in contents.items()
        for protocol in PROTOCOLS
    ]
    order = list(dict.fromkeys(method for method, _ in paths))
    return sorted(rows, key=lambda row: (order.index(row.method), PROTOCOLS.index(row.protocol)))


def read_corrupted(paths: Iterable[Path], task_names: Sequence[str]) -> list[CorruptedRow]:
    """The rows of the corrupted evaluations' files, file by file.

    Raises one InputError that lists all that is missing in them.
    """
    columns, faults, rows = [*task_names, AVERAGE], [], []
    for path in paths:
        content = _json(path)
        for method, measured in content["methods"].items():
            missing = [column for column in columns if column not in measured]
            faults += [f"{path}: no accuracy of {column}, method {method}" for column in missing]
            if not missing:
                rows.append(
                    CorruptedRow(
                        content["corruption"],
                        content["severity"] or 0,
                        method,
                        content["seed"],
                        _accuracies(measured, columns),
                    )
                )
    _complain(faults)
    return rows


def read_curve(path: Path) -> dict[str, list[float]]:
    """The columns of a CSV file of numbers; an empty cell is not-a-number."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    columns = zip(*lines, strict=True)
    return {
        name: [float(cell) if cell else float("nan") for cell in cells]
        for name, cells in zip(header, columns, strict=True)
    }


def _accuracies(measured: Mapping[str, float], columns: Iterable[str]) -> dict[str, float]:
    return {column: round(float(measured[column]), 2) for column in columns}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: not readable as JSON ({error}); make it anew: dvc repro"
        ) from error


def _complain(faults: list[str]) -> None:
    if faults:
        faults.append("fix: make these files anew for the suite's tasks: dvc repro")
        raise InputError.listing("metrics that do not fit the suite", faults)


# --- writing ------------------------------------------------------------------------------------


def results_csv(rows: Iterable[Row], task_names: Sequence[str]) -> str:
    """results.csv: method, protocol, seed, one column a task, average; percent, two decimals."""
    lines = [(row.method, row.protocol, row.seed, row.accuracies) for row in rows]
    return _csv(_NAMES, lines, task_names)


def corrupted_csv(rows: Iterable[CorruptedRow], task_names: Sequence[str]) -> str:
    """corrupted.csv: corruption, severity, method, seed, one column a task, average."""
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


def text_table(rows: Sequence[Row], references: Container[str]) -> str:
    """The results as a terminal shows them: a table of methods by tasks for each protocol.

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


# --- the best -----------------------------------------------------------------------------------


def averages(rows: list[Row]) -> dict[tuple[str, str], float]:
    """The mean over seeds of each method's average, by protocol and method."""
    grouped: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        grouped.setdefault((row.protocol, row.method), []).append(row.average)
    return {key: statistics.mean(values) for key, values in grouped.items()}


def best_merged(suite: str, rows: list[Row], references: Container[str]) -> tuple[Row, Path] | None:
    """The row with the highest transductive average among the merged models, and its weights."""
    files = Files(suite)
    candidates = [
        (row, path)
        for row in rows
        if row.protocol == PROTOCOLS[0] and row.method not in references
        for path in (
            files.merged(row.method, row.seed, row.protocol),
            files.merged(row.method, row.seed),
        )
        if path.is_file()
    ]
    return max(candidates, key=lambda candidate: candidate[0].average, default=None)
