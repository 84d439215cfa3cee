"""Made-up measurements of experiments, in the form of their stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deployment_inputs

from tasks.graph import paths
from tasks.shared.long_tables import (
    ACCURACY,
    AGREEMENT,
    ENTROPY,
    EVENNESS,
    MEASURED_IN_EXPERIMENT,
    write_long,
)
from tasks.suite.experiments.unseen import numbered_pairs
from tasks.suite.schema import Suite

OverScaling = Mapping[str, Mapping[float, tuple[float, float]]]
"""By rule and scaling accuracy and entropy."""

RULES: OverScaling = {
    "task_arithmetic": {0.0: (40.0, 2.0), 0.3: (60.0, 1.0), 1.0: (30.0, 0.5)},
    "ties_merging": {0.0: (40.0, 2.0), 0.3: (50.0, 1.0), 1.0: (55.0, 0.5)},
}

AMOUNTS = {"0_images": 50.0, "1_images": 52.0, "16_images": 60.0, "100_percent": 61.0}
"""Accuracy of what learns by amount of unlabeled images."""

OF_REGMEAN = {"1_images": 44.0, "16_images": 58.0, "100_percent": 59.0}
"""Of RegMean, which takes statistics from images."""


Measured = tuple[float, float, float, float]
"""Accuracy, entropy, evenness, agreement."""

CORRUPTED: Mapping[str, Mapping[str, Measured]] = {
    "sum": {"clean": (50.0, 1.0, 0.9, 60.0)},
    "learned": {"clean": (52.0, 0.9, 0.9, 62.0), "corrupted": (55.0, 0.8, 0.9, 65.0)},
    "guard": {"clean": (53.0, 0.9, 0.9, 63.0), "corrupted": (57.0, 0.9, 0.9, 67.0)},
}
"""By method and the images that it adapts on."""

MISLED: Mapping[tuple[str, str, int, str], Measured] = {
    ("learned", "contrast", 5, "signs"): (30.0, 0.5, 0.4, 40.0),
    ("learned", "contrast", 4, "signs"): (44.0, 0.6, 0.6, 52.0),
    ("guard", "contrast", 5, "signs"): (49.0, 0.9, 0.88, 59.0),
}
"""Exceptions, of what adapts on corrupted images: by method, corruption, severity and task."""

Correlation = tuple[float, float, float]

SURROGATE: Mapping[str, Correlation] = {
    "pretrained": (0.5, 1.0, 2.0),
    "finetuning_30": (0.6, 0.8, 1.0),
    "finetuned": (0.7, 0.2, 0.5),
    "start": (0.8, 0.9, 1.5),
    "adapting_50": (0.7, 0.6, 1.2),
    "adapted": (0.6, 0.3, 1.4),
}
"""Rank correlation, entropy and loss by moment: of fine-tuning, then of an adaptation."""

LABELS = {"start": 50.0, "entropy": 60.0, "experts": 64.0, "labels": 70.0}
"""Accuracy of the start, and by what was learned from."""

MACHINE = "a processor, 1 thread"

UNSEEN = {"pretrained": 40.0, "sum": 35.0, "learned": 45.0}
"""Accuracy by method on every task of a split."""


def experiments() -> dict[str, Any]:
    """Settings of every experiment."""
    rules = {name: {"rule": name} for name in RULES}
    learned = {"learned": {"adapt": "layer_wise"}}
    return {
        "sensitivity": {"scalings": [0.0, 0.3, 1.0], "images": 9, "methods": rules},
        "unlabeled": {
            "images": [0, 1, 16],
            "percent": [100],
            "methods": learned | {"regmean": {"rule": "regmean"}},
        },
        "unseen": {
            "splits": {"one": ["mnist"]},
            "pairs": False,
            "methods": {"sum": {"rule": "task_arithmetic"}, **learned},
        },
        "corruptions": {
            "methods": {
                "sum": {"rule": "task_arithmetic"},
                **learned,
                "guard": {"adapt": "layer_wise", "objective": "self_labelling"},
            }
        },
        "surrogate": {
            "images": 30,
            "finetuning": [30],
            "adapting": [50],
            "methods": learned,
        },
        "labels": {
            "methods": {
                "entropy": {"adapt": "layer_wise"},
                "experts": {"adapt": "layer_wise", "objective": "self_labelling"},
                "labels": {"adapt": "layer_wise", "objective": "cross_entropy"},
            }
        },
        "cost": {"timed_steps": 3},
        **deployment_inputs.SETTINGS,
    }


def write_experiments(
    suite: Suite,
    root: Path,
    rules: OverScaling | None = None,
    adapted: float = 70.0,
    spread: float = 0.0,
    amounts: Mapping[str, float] = AMOUNTS,
    unseen: Mapping[str, float] = UNSEEN,
    misled: Mapping[tuple[str, str, int, str], Measured] = MISLED,
    surrogate: Mapping[str, Correlation] = SURROGATE,
    labels: Mapping[str, float] = LABELS,
    seconds: float = 60.0,
) -> None:
    """What the pages of the suite's experiments read. spread: of a seed above the one before, in
    points; of correlations in hundredths.
    seconds: of an adaptation; a rule takes a sixtieth.
    """
    if not suite.studied:
        return
    deployment_inputs.write_number_of_tasks(suite, root)
    deployment_inputs.write_deployment(suite, root)
    for seed in suite.seeds:
        rows = [
            row
            for name, accuracy in unseen.items()
            for row in _rows(suite, "one", name, seed, accuracy + spread * seed, 0.4)
        ]
        for item in ("one", *(f"pair-{pair}" for pair in numbered_pairs(suite.tasks))):
            _write(root, suite, "unseen", item, seed, rows)
        _corruptions(root, suite, seed, spread * seed, misled)
        _write_surrogate(root, suite, surrogate, seed, spread)
        for name in ("entropy", "experts", "labels"):
            rows = [
                row
                for setting, accuracy in (("start", labels["start"]), ("learned", labels[name]))
                for row in _rows(suite, setting, name, seed, accuracy + spread * seed, 0.4)
            ]
            _write(root, suite, "labels", name, seed, rows)
        for name, method in suite.merging.items():
            values = {
                "parameters": 24 if method.adapts else 0,
                "seconds": (seconds if method.adapts else seconds / 60) + spread * seed,
                "peak_gib": 0.75,
                "forward_images": 1200 if method.adapts else 0,
                "backward_images": 1000 if method.adapts else 0,
                "operations": 2.5e12 if method.adapts else 0,
            }
            _write(
                root, suite, "cost", name, seed, _of_task("all tasks", MACHINE, name, seed, values)
            )
        for name, each in {"learned": amounts, "regmean": OF_REGMEAN}.items():
            for amount, accuracy in each.items():
                rows = _rows(suite, amount, name, seed, accuracy + spread * seed, 0.4)
                _write(root, suite, "unlabeled", f"{name}-{amount}", seed, rows)
        for name, values in {**RULES, **(rules or {})}.items():
            rows = [
                row
                for scaling, (accuracy, entropy) in values.items()
                for row in _rows(suite, scaling, name, seed, accuracy + spread * seed, entropy)
            ]
            _write(root, suite, "sensitivity", name, seed, rows)
        for name, method in suite.merging.items():
            if method.adapts:
                rows = _rows(suite, "adapted", name, seed, adapted + spread * seed, 0.4)
                _write(root, suite, "adapted", name, seed, rows)


def _corruptions(
    root: Path,
    suite: Suite,
    seed: int,
    above: float,
    misled: Mapping[tuple[str, str, int, str], Measured],
) -> None:
    metrics = (ACCURACY, ENTROPY, EVENNESS, AGREEMENT)
    for method, levels in CORRUPTED.items():
        for corruption in ("clean", *suite.corrupt.corruptions):
            rows = [
                {
                    "setting": f"{corruption}/{severity}/{adapted_on}",
                    "method": method,
                    "seed": seed,
                    "task": task,
                    "metric": metric,
                    "value": value + above * (metric == ACCURACY),
                }
                for severity in (suite.corrupt.severities if corruption != "clean" else (0,))
                for adapted_on, level in levels.items()
                if corruption != "clean" or adapted_on == "clean"
                for task in suite.corrupt.tasks
                for at in [(method, corruption, severity, task)]
                for metric, value in zip(
                    metrics, misled.get(at, level) if adapted_on != "clean" else level, strict=True
                )
            ]
            _write(root, suite, "corruptions", f"{method}-{corruption}", seed, rows)


def _write_surrogate(
    root: Path, suite: Suite, moments: Mapping[str, Correlation], seed: int, spread: float
) -> None:
    rows: dict[str, list[dict[str, Any]]] = {"finetuning": [], "learned": []}
    for moment, (rho, entropy, loss) in moments.items():
        method = "learned" if moment.startswith(("start", "adapt")) else "finetuning"
        pooled = rho + seed * spread / 100
        means = {ENTROPY: entropy, "loss": loss}
        values = means | {ACCURACY: 100 * pooled}
        values |= {f"{m}_{n}": value * n / 5 for m, value in means.items() for n in range(1, 11)}
        for number, task in enumerate(suite.tasks):
            each = {"spearman": pooled - number / 10, **values}
            rows[method] += _of_task(task, moment, method, seed, each)
        rows[method] += _of_task("all tasks", moment, method, seed, {"spearman": pooled})
    _write(root, suite, "surrogate_finetuning", "moments", seed, rows["finetuning"])
    _write(root, suite, "surrogate", "learned", seed, rows["learned"])


def _of_task(
    task: str, setting: str, method: str, seed: int, values: Mapping[str, float]
) -> list[dict[str, Any]]:
    named = {"setting": setting, "method": method, "seed": seed, "task": task}
    return [{**named, "metric": metric, "value": float(v)} for metric, v in values.items()]


def _rows(
    suite: Suite, setting: object, method: str, seed: int, accuracy: float, entropy: float
) -> list[dict[str, Any]]:
    named = {"setting": setting, "method": method, "seed": seed}
    return [
        {**named, "task": task, "metric": metric, "value": value}
        for task in suite.tasks
        for metric, value in ((ACCURACY, accuracy), (ENTROPY, entropy))
    ]


def _write(
    root: Path, suite: Suite, name: str, item: str, seed: int, rows: list[dict[str, Any]]
) -> None:
    write_long(root / paths.experiment(suite.name, name, item, seed), MEASURED_IN_EXPERIMENT, rows)
