"""How far lowered precisions end from float32: coefficients, accuracy, time, on a suite that ran.

    make study                            # once: three seeds of the mini suite
    python -m benchmarks.precision        # every seed, the suite's layer_wise_adamerging
    python -m benchmarks.precision --precisions bfloat16_backward
    python -m benchmarks.precision --seeds 0 --methods task_wise_adamerging
    python -m benchmarks.precision --seeds 0 --methods --presets paper

Run it in the project's root. The same adaptation runs in every precision, on the same images in the
same order (transductive protocol). Printed are the largest, the 99th percentile's and the mean
distance of its final coefficients to float32's, the accuracies in percent, and the ratio of times.
Progress goes to stderr, results to stdout.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge_core.adamerging import PRESETS, AdaptationSettings, Engine, adapt
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.precision import LOWERED
from adamerge_core.errors import InputError
from benchmarks.presets import COEFFICIENTS
from benchmarks.suite_problem import SuiteProblem, with_progress
from tasks.adapt import adaptation_settings
from tasks.shared.task_vectors import set_up
from tasks.suite.schema import Suite, load_params

WITHOUT_TARGETS = [
    name
    for name, preset in PRESETS.items()
    if not OBJECTIVES[preset.objective].needs and preset.granularity in COEFFICIENTS
]


@dataclass(frozen=True)
class Run:
    """What one adaptation ended with."""

    coefficients: Tensor
    accuracy: float
    """Percent, on average over the tasks."""
    seconds: float


def run(suite: Suite, name: str, settings: AdaptationSettings, seed: int, precision: str) -> Run:
    """Adapt and measure."""
    problem = SuiteProblem.open(suite, seed, "transductive")
    engine = Engine(
        problem.encoder, problem.task_vectors, problem.heads, suite.compute.micro_batch, precision
    )
    began = time.monotonic()
    steps = adapt(engine, problem.unlabeled, settings, seed)
    for step in with_progress(steps, f"{name} seed {seed} {precision}", settings.steps):
        last = step.coefficients
    seconds = time.monotonic() - began
    return Run(last, problem.accuracy(engine, last), seconds)


def report(
    suite: Suite, name: str, settings: AdaptationSettings, seed: int, precisions: list[str]
) -> None:
    """Print how far each precision ends from float32."""
    plain = run(suite, name, settings, seed, "float32")
    for precision in precisions:
        lowered = run(suite, name, settings, seed, precision)
        print_comparison(f"{name} seed {seed} {precision}", plain, lowered)


def print_comparison(label: str, plain: Run, lowered: Run) -> None:
    """One line."""
    distance = (plain.coefficients - lowered.coefficients).abs().flatten()
    share = (distance <= 0.01).double().mean()
    print(
        f"{label}: coefficients at most {distance.max():.4f} apart, 99 % within "
        f"{torch.quantile(distance, 0.99):.4f}, {distance.mean():.4f} on average, {share:.1%} "
        f"within 0.01; accuracy {plain.accuracy:.2f} and {lowered.accuracy:.2f}; float32 takes "
        f"{plain.seconds / lowered.seconds:.2f} times as long",
        flush=True,
    )


def main() -> None:
    suite = load_params()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = suite.merge.of_kind("adapt")
    parser.add_argument("--methods", nargs="*", choices=known, default=["layer_wise_adamerging"])
    parser.add_argument("--presets", nargs="+", choices=WITHOUT_TARGETS, default=[])
    parser.add_argument("--precisions", nargs="+", choices=LOWERED, default=list(LOWERED))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(suite.seeds))
    arguments = parser.parse_args()
    set_up(suite.compute)
    chosen = {
        name: adaptation_settings(suite.merge.granularity(name), suite.merge[name])
        for name in arguments.methods
    }
    chosen |= {name: PRESETS[name] for name in arguments.presets}
    for name, settings in chosen.items():
        for seed in arguments.seeds:
            report(suite, name, settings, seed, arguments.precisions)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
