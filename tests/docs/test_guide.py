"""The guide does what it says: its blocks run in order, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
TABLE = r"^(individual|weight_averaging|task_arithmetic|adamerging) +([\d.]+)$"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def accuracies(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(TABLE, text, re.MULTILINE)}


def test_the_merge_takes_twenty_lines() -> None:
    _, merge, *_ = blocks("python")
    assert len([line for line in merge.splitlines() if line.strip()]) <= 20


def test_the_guide_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks("python")), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = accuracies(done.stdout)
    (table,) = blocks("text")
    shown = accuracies(table)
    assert printed.keys() == shown.keys()
    # sums differ by rounding from machine to machine, and training makes more of it
    assert all(abs(printed[name] - shown[name]) < 3 for name in shown), printed
    merged = {name: printed[name] for name in printed if name != "individual"}
    assert max(merged, key=lambda name: merged[name]) == "adamerging"
    assert printed["individual"] > printed["adamerging"]
