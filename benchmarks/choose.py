"""How well each criterion chooses the scaling of merge rules, on a suite that has run.

    python -m benchmarks.choose                     # every seed of the active suite
    python -m benchmarks.choose --seeds 0 1 2 --rules task_arithmetic iso_c

Run it in the project's root. Every criterion is measured on the validation images, for every
scaling of every rule; what it chooses is measured on the test images, beside the scaling that is
best there. Regret is the difference of the two accuracies, in points of percent. Each seed and rule
takes about two minutes on one core; progress goes to stderr, the table to stdout.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from adamerge_core.errors import InputError
from adamerge_core.merging import CRITERIA, RULES
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Judge, all_logits
from adamerge_core.vision.images import LabeledImages
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.task_vectors import open_task_vectors
from tasks.suite.schema import Suite, load_params

SUMS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Scalings of rules that add sums of task vectors."""
SPECTRAL = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Scalings of rules that change spectra."""
SCALINGS: Mapping[str, Sequence[float]] = {
    "task_arithmetic": SUMS,
    "ties_merging": SUMS,
    "iso_c": SPECTRAL,
    "tsv_m": SPECTRAL,
}


@dataclass(frozen=True)
class Measured:
    """One scaling of a rule."""

    scaling: float
    criteria: Mapping[str, float]
    """On the validation images, by criterion."""
    test: float
    """Accuracy on the test images, percent on average over the tasks."""


@dataclass(frozen=True)
class Chosen:
    """What a criterion chose among the scalings of a rule, for one seed."""

    scaling: float
    test: float
    best: Measured
    """The scaling that is best on the test images."""

    @property
    def regret(self) -> float:
        return self.best.test - self.test


class Problem:
    """What a seed of a suite is measured with."""

    def __init__(self, suite: Suite, seed: int) -> None:
        device = set_up(suite.compute.model_dump())
        self.encoder: nn.Module = open_encoder(suite.model.model_dump(), device)
        self.heads = open_heads(suite.model.name, suite.tasks, device)
        vectors = open_task_vectors(suite.model.name, suite.tasks, seed)
        self.task_vectors: TaskVectors = vectors.to(device)
        self.validation = self._open(suite, "val")
        self.test = self._open(suite, "test")
        parts = (self.encoder, self.task_vectors, self.heads, self.validation)
        self.judges = {name: Judge.prepare(name, *parts) for name in CRITERIA}

    def _open(self, suite: Suite, split: str) -> dict[str, LabeledImages]:
        return open_split(suite.tasks, suite.size, split)

    def measure(self, rule: str, scaling: float) -> Measured:
        """Merge, and measure every criterion and the test accuracy."""
        self.encoder.load_state_dict(RULES[rule](self.task_vectors, scaling=scaling))
        logits = all_logits(self.encoder, self.heads, self.validation)
        values = {name: each.score(logits)["average"] for name, each in self.judges.items()}
        test = accuracy(self.encoder, self.heads, self.test)["average"]
        return Measured(scaling, values, test)


def chosen(criterion: str, measured: Sequence[Measured]) -> Chosen:
    """Choose by a criterion, the first of equals."""
    sign = 1 if CRITERIA[criterion].better == "higher" else -1
    picked = max(measured, key=lambda each: sign * each.criteria[criterion])
    return Chosen(picked.scaling, picked.test, max(measured, key=lambda each: each.test))


def table(results: Mapping[str, Sequence[Sequence[Measured]]], seeds: Sequence[int]) -> str:
    """Write the results of every rule, a list of measurements a seed, as a table in Markdown."""
    lines = [
        f"| rule | criterion | chosen, seeds {', '.join(map(str, seeds))} | test accuracy | "
        "best on test | regret | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule, by_seed in results.items():
        for criterion in CRITERIA:
            picked = [chosen(criterion, measured) for measured in by_seed]
            regrets = [each.regret for each in picked]
            cells = [
                f"`{rule}`",
                criterion,
                ", ".join(f"{each.scaling:g}" for each in picked),
                f"{statistics.mean(each.test for each in picked):.1f}",
                f"{statistics.mean(each.best.test for each in picked):.1f}",
                f"{statistics.mean(regrets):.1f}",
                f"{max(regrets):.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    suite = load_params()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choose", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rules", nargs="+", choices=list(SCALINGS), default=list(SCALINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(suite.seeds))
    arguments = parser.parse_args()
    results: dict[str, list[list[Measured]]] = {rule: [] for rule in arguments.rules}
    for seed in arguments.seeds:
        problem = Problem(suite, seed)
        for rule in arguments.rules:
            measured = []
            for scaling in SCALINGS[rule]:
                measured.append(problem.measure(rule, scaling))
                print(f"{rule} seed {seed}: {measured[-1]}", file=sys.stderr, flush=True)
            results[rule].append(measured)
    print(table(results, arguments.seeds))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
