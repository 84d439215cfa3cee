"""Rows of a table that survive a kill. Nothing here imports torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write


class ResumableRows:
    """Rows of a curve that survive a kill: a line each in the scratch folder, checksum and JSON."""

    def __init__(self, scratch: Path | None, name: str) -> None:
        self._file = scratch / f"{name}.jsonl" if scratch else None
        self._rows: list[dict[str, Any]] | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Add the row of a step (key `step`); drops kept rows of that step and later ones."""
        if self._rows is None:
            self._rows = [kept for kept in self._kept() if kept["step"] < row["step"]]
            self._rewrite()
        self._rows.append(row)
        if self._file:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(_line(row))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self._rows or []

    def reach(self, step: int) -> bool:
        """Tell whether the kept rows are whole up to a step, one after the other."""
        steps = [row["step"] for row in self._kept()]
        return step in steps and steps == list(range(steps[0], steps[-1] + 1)) and steps[0] <= 1

    def _kept(self) -> list[dict[str, Any]]:
        """Read the rows before the first line that is damaged or cut."""
        rows = []
        if self._file and self._file.is_file():
            for line in self._file.read_bytes().splitlines(keepends=True):
                checksum, _, text = line.partition(b" ")
                if checksum != _checksum(text):
                    break
                rows.append(json.loads(text))
        return rows

    def _rewrite(self) -> None:
        if self._file:
            with atomic_write(self._file) as temporary:
                temporary.write_text("".join(map(_line, self.rows)), encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    text = json.dumps(row) + "\n"
    return f"{_checksum(text.encode()).decode()} {text}"


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()
