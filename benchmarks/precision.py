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

from adamerge_core.adamerging import PRESETS
from adamerge_core.adamerging.precision import LOWERED
from adamerge_core.errors import InputError
from benchmarks.suite_problem import SuiteProblem, last_step
from tasks.shared.device import set_up
from tasks.suite.methods import AdaptMethod, parse_as
from tasks.suite.schema import Suite, load_params


@dataclass(frozen=True)
class Run:
    """What one adaptation ended with."""

    coefficients: Tensor
    accuracy: float
    """Percent, on average over the tasks."""
    seconds: float


def run(suite: Suite, name: str, method: AdaptMethod, seed: int, precision: str) -> Run:
    """Adapt and measure."""
    problem = SuiteProblem.open(suite, seed, "transductive")
    adaptation = problem.prepare(method, precision=precision)
    began = time.monotonic()
    last = last_step(adaptation, seed, f"{name} seed {seed} {precision}").coefficients
    seconds = time.monotonic() - began
    return Run(last, problem.accuracy(adaptation.model(last, {})), seconds)


def report(suite: Suite, name: str, method: AdaptMethod, seed: int, precisions: list[str]) -> None:
    """Print how far each precision ends from float32."""
    plain = run(suite, name, method, seed, "float32")
    for precision in precisions:
        lowered = run(suite, name, method, seed, precision)
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
    adapting = {
        name: method for name, method in suite.merging.items() if isinstance(method, AdaptMethod)
    }
    parser.add_argument("--methods", nargs="*", choices=adapting, default=["layer_wise_adamerging"])
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=[])
    parser.add_argument("--precisions", nargs="+", choices=LOWERED, default=list(LOWERED))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(suite.seeds))
    arguments = parser.parse_args()
    set_up(suite.compute.model_dump())
    chosen = {name: adapting[name] for name in arguments.methods}
    for name in arguments.presets:
        entry = {"adapt": PRESETS[name].granularity, "preset": name}
        chosen[name] = parse_as(AdaptMethod, name, {name: entry})
    for name, method in chosen.items():
        for seed in arguments.seeds:
            report(suite, name, method, seed, arguments.precisions)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
