"""Tables in long form: a row a measured value, with what was measured, of what, and the value.

Nothing here imports torch.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError

MEASURED = ("method", "protocol", "seed", "task", "metric", "value")
MEASURED_CORRUPTED = ("corruption", "severity", "method", "seed", "task", "metric", "value")
MEASURED_IN_EXPERIMENT = ("setting", "method", "seed", "task", "metric", "value")
"""Columns of the tables in long form: of evaluations, of those on corrupted images, and of what an
experiment measures in each of its settings."""

ACCURACY, ENTROPY = "accuracy", "entropy"
"""The metrics top-1 accuracy, in percent, and mean entropy of the predictions, in nats."""

EVENNESS, AGREEMENT = "evenness", "agreement"
"""Of the predicted classes, from 0 (one) to 1 (all alike), and with the individual model, in
percent."""

_TYPES = {"seed": int, "severity": int, "value": float}


def write_long(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table in long form. `read_long` gives the same values back, to the last bit."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "value": repr(row["value"])} for row in rows)


def read_long(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a table in long form: `value` is a float, `seed` and `severity` are integers.

    Raises InputError where the file has other columns or a cell is no number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        found = lines.fieldnames or []
        if tuple(found) != tuple(columns):
            raise InputError(
                f"{path}: its columns are {', '.join(found) or 'none'}; they must be "
                f"{', '.join(columns)}; make it anew: dvc repro"
            )
        try:
            return [
                {name: _TYPES.get(name, str)(cell) for name, cell in line.items()} for line in lines
            ]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, line {lines.line_num}: {error}; make it anew: dvc repro"
            ) from error
