"""Made-up measurements of the experiments number_of_tasks and deployment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tasks.graph import paths
from tasks.shared.long_tables import ACCURACY, ENTROPY, MEASURED_IN_EXPERIMENT, write_long
from tasks.suite.experiments.number_of_tasks import NumberOfTasks
from tasks.suite.schema import Suite

_METHODS = {"sum": {"rule": "task_arithmetic"}, "learned": {"adapt": "layer_wise"}}

SETTINGS: Mapping[str, Any] = {
    "number_of_tasks": {
        "counts": [2, 3],
        "subsets": 2,
        "seed": 0,
        "images": 400,
        "methods": _METHODS,
    },
    "deployment": {
        "conditions": {
            "noise": {"kind": "corrupted", "corruption": "gaussian_noise", "severity": 3},
            "mixed_up": {"kind": "wrong_expert", "task": "signs", "expert_of": "mnist"},
        },
        "images": 9,
        "seed": 0,
        "methods": _METHODS,
    },
}
"""By experiment."""

Kept = Mapping[str, Mapping[int, float]]
"""Accuracy by method and number of tasks."""

KEPT: Kept = {"sum": {2: 40.0, 3: 30.0}, "learned": {2: 42.0, 3: 39.0}}

Disturbed = Mapping[str, Mapping[str, float]]
"""Accuracy by condition and method."""

DISTURBED: Disturbed = {
    "undisturbed": {"sum": 50.0, "learned": 70.0},
    "noise": {"learned": 62.0},
    "mixed_up": {"sum": 45.0, "learned": 44.0},
}


def write_number_of_tasks(
    suite: Suite, root: Path, kept: Kept = KEPT, spread: float = 0.0, apart: float = 1.0
) -> None:
    """spread: of a seed above the one before; apart: of a subset above the one before, in points,
    of what is learned twice. Nothing is written of a suite without the experiment.
    """
    if "number_of_tasks" not in suite.studied:
        return
    settings = cast("NumberOfTasks", suite.studied["number_of_tasks"])
    for count, subsets in settings.drawn(suite.tasks).items():
        for place, (subset, tasks) in enumerate(subsets.items()):
            for seed in suite.seeds:
                rows = [
                    row
                    for method, accuracies in kept.items()
                    for shift in [place * apart * (1 + (method == "learned")) + spread * seed]
                    for row in _rows(subset, method, seed, tasks, accuracies[count] + shift)
                ]
                _write(root, suite, "number_of_tasks", subset, seed, rows)


def write_deployment(
    suite: Suite,
    root: Path,
    disturbed: Disturbed = DISTURBED,
    spread: float = 0.0,
    harm: float = 0.0,
) -> None:
    """spread: of a seed above the one before; harm: of a condition in a seed more than in the one
    before. The first task loses a point more than the others do under a condition.
    """
    for seed in suite.seeds:
        for condition, accuracies in disturbed.items():
            rows = []
            for method, accuracy in accuracies.items():
                other = condition != "undisturbed"
                level = accuracy + spread * seed - harm * seed * other
                made = _rows(condition, method, seed, suite.tasks, level)
                for row in made:
                    if other and row["task"] == suite.tasks[0]:
                        row["value"] -= 1
                rows += made
            _write(root, suite, "deployment", condition, seed, rows)


def _rows(
    setting: str, method: str, seed: int, tasks: tuple[str, ...], accuracy: float
) -> list[dict[str, Any]]:
    named = {"setting": setting, "method": method, "seed": seed}
    return [
        {**named, "task": task, "metric": metric, "value": value}
        for task in tasks
        for metric, value in ((ACCURACY, accuracy), (ENTROPY, 0.4))
    ]


def _write(
    root: Path, suite: Suite, name: str, item: str, seed: int, rows: list[dict[str, Any]]
) -> None:
    write_long(root / paths.experiment(suite.name, name, item, seed), MEASURED_IN_EXPERIMENT, rows)
