"""Rows of a table that survive a kill. Nothing here imports torch."""

import json
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write


class ResumableRows:
    """Rows of a curve that survive a kill: one JSON line each in the scratch folder."""

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
                file.write(json.dumps(row) + "\n")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self._rows or []

    def _kept(self) -> list[dict[str, Any]]:
        if not self._file or not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _rewrite(self) -> None:
        if self._file:
            with atomic_write(self._file) as temporary:
                text = "".join(json.dumps(row) + "\n" for row in self.rows)
                temporary.write_text(text, encoding="utf-8")
