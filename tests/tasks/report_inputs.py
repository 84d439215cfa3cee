"""Made-up metrics for a report, in the formats of the stages that write them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from adamerge_core.coefficient_files import LearnedCoefficients
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.content import Content, Table
from tasks.shared.hits import write_hits
from tasks.shared.long_tables import ACCURACY, MEASURED, MEASURED_CORRUPTED, write_long
from tasks.shared.tables import write_csv, write_json
from tasks.suite.fields import REFERENCES
from tasks.suite.schema import Suite, checked
from tests.tasks.experiment_inputs import write_experiments

TASKS = ("signs", "letters", "mnist")
SEEDS = (0, 1)
LAYERS = (  # out of order, as safetensors files sort them
    "head.proj.weight",
    "trunk.blocks.10.0.conv.weight",
    "trunk.blocks.2.0.conv.weight",
    "trunk.bn2.weight",
    "trunk.conv_stem.weight",
)
SUITES = Path(__file__).parents[2] / "suites"

Levels = Mapping[str, float]
"""The accuracy of each method, about which its tasks and seeds vary."""


def small_suite(suite: str = "mini", **changes: Any) -> Suite:
    """A suite with three tasks, two seeds, two corruptions."""
    raw = yaml.safe_load((SUITES / f"{suite}.yaml").read_text(encoding="utf-8"))
    raw |= {"seeds": list(SEEDS), "tasks": list(TASKS)}
    raw["corrupt"] |= {"tasks": list(TASKS[:2]), "corruptions": ["motion_blur", "contrast"]}
    raw["robustness"]["corruptions"] = ["clean", "motion_blur"]
    return checked(raw | changes, "small suite")


def write_inputs(suite: Suite, root: Path, levels: Levels | None = None) -> None:
    """Every file that the report of `suite` reads; methods rise by 4 points where no level says
    otherwise.
    """
    rng = np.random.default_rng(0)
    for seed in suite.seeds:
        for rank, method in enumerate((*REFERENCES, *suite.merging)):
            level = (levels or {}).get(method, min(40.0 + 4 * rank, 90.0))
            _evaluation(suite, root, method, seed, level, rng)
            _learned(suite, root, method, seed, rank, rng)
        for corruption in suite.robustness.corruptions:
            _robustness(suite, root, corruption, seed, rng)
        count = len(suite.tasks)
        cosine = np.full((count, count), 0.05) + 0.95 * np.eye(count)
        write_json(root / paths.geometry(suite.name, seed), geometry(suite.tasks, cosine))
    _images(suite, root, rng)
    write_experiments(suite, root)


def geometry(tasks: Sequence[str], cosine: np.ndarray) -> dict[str, Any]:
    """How task vectors of length 2 lie to each other; those of later tasks conflict more."""
    count = len(tasks)
    return {
        "tasks": tasks,
        "layers": 5,
        "cosine": cosine.tolist(),
        "l2_distance": (2 * np.sqrt(2 - 2 * np.clip(cosine, -1, 1))).tolist(),
        "l2_norm": [2.0] * count,
        "l2_norm_by_block": {"stem": [1.2] * count, "blocks.0": [1.6] * count},
        "sign_conflicts": {
            "pairs": (50 * (1 - np.eye(count))).tolist(),
            "any": {"plain": 98.0, "trimmed": 20.0, "elected": 0.0},
            "dropped": [30.0 + k for k in range(count)],
        },
    }


def _evaluation(
    suite: Suite, root: Path, method: str, seed: int, level: float, rng: np.random.Generator
) -> None:
    rows = [
        {
            "method": method,
            "protocol": protocol,
            "seed": seed,
            "task": task,
            "metric": ACCURACY,
            "value": level + float(rng.uniform(0, 0.5)),
        }
        for protocol in PROTOCOLS
        for task in suite.tasks
    ]
    write_long(root / paths.evaluation(suite.name, method, seed), MEASURED, rows)
    hits = {(row["protocol"], row["task"]): _right(row["value"]) for row in rows}
    write_hits(root / paths.hits(suite.name, method, seed), hits)


def _right(percent: float, count: int = 400) -> np.ndarray:
    """So many percent of the images right, always the same ones first."""
    return np.arange(count) < round(count * percent / 100)


def _robustness(
    suite: Suite, root: Path, corruption: str, seed: int, rng: np.random.Generator
) -> None:
    severity = 0 if corruption == "clean" else suite.robustness.severity
    rows = [
        {
            "corruption": corruption,
            "severity": severity,
            "method": method,
            "seed": seed,
            "task": task,
            "metric": ACCURACY,
            "value": float(rng.uniform(40, 90)),
        }
        for method in suite.robust
        for task in suite.corrupt.tasks
    ]
    write_long(root / paths.robustness(suite.name, corruption, seed), MEASURED_CORRUPTED, rows)


def _learned(
    suite: Suite, root: Path, name: str, seed: int, rank: int, rng: np.random.Generator
) -> None:
    """What a method leaves beside its model: the choice, and by protocol what adaptation did."""
    method = suite.merging.get(name)
    if method is None:
        return
    if method.choose:
        write_csv(root / paths.choice(suite.name, name, seed), _tried(suite, method.choose))
    if method.adapts:
        for protocol in PROTOCOLS:
            lines = [_step(suite, step, rank, rng) for step in range(51)]
            write_csv(root / paths.trajectory(suite.name, name, seed, protocol), lines)
            file = root / paths.coefficients(suite.name, name, seed, protocol)
            file.parent.mkdir(parents=True, exist_ok=True)
            values = torch.from_numpy(rng.uniform(0, 1, (len(LAYERS), len(suite.tasks))))
            LearnedCoefficients(values, tuple(LAYERS), tuple(suite.tasks)).save(file)


def _tried(suite: Suite, choose: Any) -> list[dict[str, Any]]:
    lines = []
    for place, value in enumerate(choose.values):
        measured = {task: 80.0 - 2 * (place - i) ** 2 for i, task in enumerate(suite.tasks)}
        measured["average"] = float(np.mean(list(measured.values())))
        lines.append({choose.parameter: value, "criterion": choose.by} | measured)
    return lines


def _step(suite: Suite, step: int, rank: int, rng: np.random.Generator) -> dict[str, Any]:
    names, done = suite.tasks, step / 50
    entropy = {
        task: float((2 + i / 3) * np.exp(-done) + rng.normal(0, 0.1))
        for i, task in enumerate(names)
    }
    accuracy = {task: 40 + 2 * rank + 20 * done + 5 * i for i, task in enumerate(names)}
    measured = step % 25 == 0
    return {
        "step": step,
        "loss": sum(entropy.values()) if step else None,
        **{f"entropy_{task}": value if step else None for task, value in entropy.items()},
        **{f"mean_coefficient_{task}": 0.3 for task in names},
        **{f"accuracy_{task}": value if measured else None for task, value in accuracy.items()},
        "accuracy_average": float(np.mean(list(accuracy.values()))) if measured else None,
    }


def _images(suite: Suite, root: Path, rng: np.random.Generator) -> None:
    count, size = 12, suite.size
    for task in suite.tasks:
        images = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
        _npy(root / paths.images(task, size, "test"), images)
        _npy(root / paths.labels(task, size, "test"), np.arange(count) % 5)
        names = [f"{task} class {number}" for number in range(5)]
        write_json(root / paths.classes(task), {"classes": names, "templates": ["a {}."]})
    for task in suite.corrupt.tasks:
        for corruption in suite.corrupt.corruptions:
            shape = (len(suite.corrupt.severities), 4, 16, 16, 3)
            stack = rng.integers(0, 256, shape, np.uint8)
            _npy(root / paths.corrupted(task, size, corruption), stack)


def _npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def table(content: Content, name: str) -> Table:
    """The table of a page that is called so."""
    (found,) = [each for each in content.tables if each.name == name]
    return found


def lines_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
