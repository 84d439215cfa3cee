"""Every example runs offline and prints what its docstring says; the numbers are held loosely."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def printed(name: str, folder: Path) -> str:
    """What an example prints, run as a user runs it, in an empty folder."""
    line = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def last_number(text: str, row: str) -> float:
    """The last number of the line that begins with `row`."""
    (line,) = re.findall(rf"^{re.escape(row)}\b.*$", text, re.MULTILINE)
    return float(line.split()[-1])


def test_every_example_is_tested() -> None:
    assert EXAMPLES == [
        "choose_scaling",
        "merge_and_adapt",
        "merge_checkpoints",
        "robustness",
        "tiny_models",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 55
    assert name == "tiny_models" or f"python examples/{name}.py" in text


def test_merge_and_adapt(tmp_path: Path) -> None:
    text = printed("merge_and_adapt", tmp_path)
    average = {
        name: last_number(text, name)
        for name in ("pretrained", "weight_averaging", "layer-wise AdaMerging")
    }
    assert list(average.values()) == sorted(average.values())
    assert 75 < average["layer-wise AdaMerging"] < 90


def test_choose_scaling(tmp_path: Path) -> None:
    text = printed("choose_scaling", tmp_path)
    labels = last_number(text, "by labels")
    assert labels >= last_number(text, "by agreement") > labels - 5
    assert labels >= last_number(text, "by entropy") > labels - 10


@pytest.mark.slow
def test_merge_checkpoints(tmp_path: Path) -> None:
    text = printed("merge_checkpoints", tmp_path)
    average = [last_number(text, name) for name in ("pretrained", "merged", "individual")]
    assert average == sorted(average)
    assert average[1] > average[0] + 2


@pytest.mark.slow
def test_robustness(tmp_path: Path) -> None:
    text = printed("robustness", tmp_path)
    for noise in ("0.6", "0.9", "1.2"):
        (fixed, adapted) = re.findall(rf"^ +{noise} +([\d.]+) +([\d.]+)$", text, re.M)[0]
        assert float(adapted) > float(fixed) + 2
    assert 0 <= last_number(text, "0.weight") <= 1
