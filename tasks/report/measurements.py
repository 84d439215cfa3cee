"""The metrics files that pages read, checked against the suite."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from adamerge_core.errors import InputError
from tasks.graph.paths import PROTOCOLS
from tasks.report.rows import AVERAGE, CorruptedRow, Row
from tasks.shared.long_tables import (
    ACCURACY,
    MEASURED,
    MEASURED_CORRUPTED,
    MEASURED_IN_EXPERIMENT,
    read_long,
)

Curve = Mapping[str, Sequence[float]]
"""A metrics file: its columns by name; not-a-number where a cell is empty."""

Measured = dict[tuple[str, str], list[dict[str, float]]]
"""Of an experiment, by setting and method: by task and "average", a seed each."""


def evaluations(
    files: Mapping[tuple[str, int], Path], task_names: Sequence[str], metric: str = ACCURACY
) -> list[Row]:
    """Read a metric of the evaluations by method and seed.

    Gives a row by method, protocol and seed, in the order of the files' methods.

    Raises one InputError that lists all that is missing in them.
    """
    faults: list[str] = []
    rows: list[tuple[str, str, int, dict[str, float]]] = []
    for (method, seed), path in files.items():
        measured: dict[str, dict[str, float]] = defaultdict(dict)
        for line in read_long(path, MEASURED):
            if line["metric"] == metric:
                measured[line["protocol"]][line["task"]] = line["value"]
        for protocol in PROTOCOLS:
            missing = [task for task in task_names if task not in measured[protocol]]
            faults += [f"{path}: no {metric} of {task}, protocol {protocol}" for task in missing]
            rows.append((method, protocol, seed, measured[protocol]))
    _complain(faults)
    order = list(dict.fromkeys(method for method, _ in files))
    rows.sort(key=lambda row: (order.index(row[0]), PROTOCOLS.index(row[1])))
    return [
        Row(method, protocol, seed, _with_average(found, task_names))
        for method, protocol, seed, found in rows
    ]


def corrupted(files: Iterable[Path], task_names: Sequence[str]) -> list[CorruptedRow]:
    """Read the evaluations on corrupted images, file by file.

    Raises one InputError that lists all that is missing in them.
    """
    faults: list[str] = []
    rows: list[tuple[tuple[str, int, str, int], dict[str, float]]] = []
    for path in files:
        measured: dict[tuple[str, int, str, int], dict[str, float]] = defaultdict(dict)
        for line in read_long(path, MEASURED_CORRUPTED):
            if line["metric"] == ACCURACY:
                key = (line["corruption"], line["severity"], line["method"], line["seed"])
                measured[key][line["task"]] = line["value"]
        if not measured:
            faults.append(f"{path}: no accuracy")
        for key, found in measured.items():
            missing = [task for task in task_names if task not in found]
            faults += [f"{path}: no {ACCURACY} of {task}, method {key[2]}" for task in missing]
            rows.append((key, found))
    _complain(faults)
    return [CorruptedRow(*key, _with_average(found, task_names)) for key, found in rows]


def in_experiment(files: Iterable[Path], task_names: Sequence[str], metric: str) -> Measured:
    """Read a metric in percent that an experiment measured, setting by setting, file by file.

    Raises one InputError that lists all that is missing in them.
    """
    found = unrounded(files, task_names, metric)
    return {
        key: [_with_average(values, task_names) for values in seeds] for key, seeds in found.items()
    }


def unrounded(files: Iterable[Path], task_names: Sequence[str], metric: str) -> Measured:
    """Read a metric of any unit likewise, as it was measured and without its average."""
    faults: list[str] = []
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for path in files:
        measured: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
        for line in read_long(path, MEASURED_IN_EXPERIMENT):
            if line["metric"] == metric:
                key = (line["setting"], line["method"], line["seed"])
                measured[key][line["task"]] = line["value"]
        if not measured:
            faults.append(f"{path}: no {metric}")
        for (setting, method, _), values in measured.items():
            missing = [task for task in task_names if task not in values]
            faults += [f"{path}: no {metric} of {task}, setting {setting}" for task in missing]
            if not missing:
                found[setting, method].append({task: values[task] for task in task_names})
    _complain(faults)
    return dict(found)


def curve(path: Path) -> dict[str, list[float]]:
    """Read the columns of a CSV file of numbers; an empty cell is not-a-number."""
    return {
        name: [float(cell) if cell else float("nan") for cell in cells]
        for name, cells in columns(path).items()
    }


def columns(path: Path) -> dict[str, list[str]]:
    """Read the columns of a CSV file as texts."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    return dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))


def _with_average(measured: Mapping[str, float], task_names: Sequence[str]) -> dict[str, float]:
    """Round to the two decimals of results.csv, the mean after it is taken."""
    mean = sum(measured[task] for task in task_names) / len(task_names)
    return {task: round(measured[task], 2) for task in task_names} | {AVERAGE: round(mean, 2)}


def _complain(faults: list[str]) -> None:
    if faults:
        faults.append("fix: make these files anew for the suite's tasks: dvc repro")
        raise InputError.listing("metrics that do not fit the suite", faults)
