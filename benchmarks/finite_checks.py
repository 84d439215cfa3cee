"""What the checks of a step of adaptation for values that are not finite cost, beside the step.

    python -m benchmarks.finite_checks                    # ViT-B/32, 8 tasks, 16 images per task
    python -m benchmarks.finite_checks --model mini --steps 20

A step is the loss, the gradient and the optimizer's update; the checks are those that `adapt` makes
of its losses, gradient and updated parameters. Both are timed in each step of one run, after a step
to warm up, and the ratio is that of a step's own checks. Progress goes to stderr, results to
stdout.
"""

import argparse
import time
from dataclasses import dataclass

import torch

from adamerge_core.adamerging import AdaptationSettings, Engine
from adamerge_core.adamerging.non_finite import refuse_non_finite, refuse_non_finite_update
from adamerge_core.adamerging.optimizer import Optimizer
from benchmarks.adapt_step import spread
from benchmarks.arrangements import engine
from benchmarks.machine import say
from benchmarks.random_models import CLASSES, IMAGE_SIZE, Problem, random_problem


@dataclass(frozen=True)
class Cost:
    """Seconds of one step, and of its checks."""

    step: float
    checks: float


def measure(problem: Problem, chosen: Engine, steps: int) -> list[Cost]:
    """Take a step to warm up, then `steps` that are timed."""
    settings = AdaptationSettings(steps=1 + steps)
    start = chosen.parameterisation.start(settings.granularity, settings.start)
    optimizer, costs = Optimizer(start, settings), []
    for step in range(1, settings.steps + 1):
        began = time.perf_counter()
        before = optimizer.parameters
        result = chosen.loss_and_gradient(before, problem.images)
        checked = time.perf_counter()
        refuse_non_finite(chosen, step, before, result.loss, problem.images, result.gradient)
        seconds = time.perf_counter() - checked
        optimizer.step(result.gradient, step)
        after = optimizer.parameters
        checked = time.perf_counter()
        refuse_non_finite_update(step, before, after, settings.learning_rate)
        ended = time.perf_counter()
        seconds += ended - checked
        costs.append(Cost(ended - began - seconds, seconds))
        say(f"  step {step}: {costs[-1].step:.3g} s, checks {costs[-1].checks:.3g} s")
    return costs[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="ViT-B-32", choices=IMAGE_SIZE)
    parser.add_argument("--tasks", type=int, default=len(CLASSES), choices=range(1, 9))
    parser.add_argument("--images-per-task", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="timed ones")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if min(options.images_per_task, options.micro_batch, options.steps, options.threads) < 1:
        parser.error("counts must be at least 1")
    torch.set_num_threads(options.threads)
    problem = random_problem(options.model, options.tasks, options.images_per_task, "cpu")
    vectors = problem.task_vectors(clone=True)
    chosen = engine(problem, vectors, options.micro_batch, "float32")
    costs = measure(problem, chosen, options.steps)
    print(f"step            {spread([each.step for each in costs], ' s')}")
    print(f"checks          {spread([each.checks for each in costs], ' s')}")
    print(f"checks / step   {spread([each.checks / each.step for each in costs])}")


if __name__ == "__main__":
    main()
