"""The stages' tables on disk. Nothing here imports torch."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with one set of columns; numbers have six significant digits, None is empty."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
