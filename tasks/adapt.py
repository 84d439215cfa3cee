"""adapt: merging coefficients learned on test images, unlabeled but for one objective, once a
protocol.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.adamerging.non_finite import NonFiniteError
from adamerge_core.checkpoints import StateDict
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Judge
from adamerge_core.vision.images import LabeledImages
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.accuracy import accuracy
from tasks.shared.adaptation import Adaptation
from tasks.shared.choice import choose
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.resuming import resumed
from tasks.shared.tables import write_csv
from tasks.shared.task_vectors import Statistics, open_statistics, open_task_vectors
from tasks.suite.methods import AdaptMethod, parse_as
from tasks.suite.sections import Evaluate


@dataclass(frozen=True)
class Problem:
    """What the adaptations of a stage share."""

    work: Work
    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    task_vectors: TaskVectors
    statistics: Statistics
    test: Mapping[str, LabeledImages]

    @property
    def evaluate(self) -> Evaluate:
        return self.work.section(Evaluate)

    def prepare(self, method: AdaptMethod) -> Adaptation:
        """Put a method together over the test images."""
        compute = self.work.params["compute"]
        return Adaptation.prepare(
            method, self.encoder, self.task_vectors, self.heads, self.test, compute
        )


@dataclass(frozen=True)
class Learned:
    """What one adaptation ended with."""

    model: StateDict
    coefficients: LearnedCoefficients
    trajectory: list[dict[str, Any]]


def run(work: Work) -> None:
    """Write coefficients, trajectory and merged model of each protocol; with `choose` also what
    the criterion gave for each value.
    """
    suite, name, model = (work.options[key] for key in ("suite", "method", "model"))
    tasks, method = work.params["tasks"], parse_as(AdaptMethod, name, work.params["methods"])
    device = set_up(work.params["compute"])
    problem = Problem(
        work,
        open_encoder(work.params["model"], device),
        open_heads(model, tasks, device),
        open_task_vectors(model, tasks, work.seed).to(device),
        open_statistics(model, method.needs, tasks, work.seed, device),
        open_split(tasks, work.options["size"], "test"),
    )
    choices: list[dict[str, Any]] = []
    for protocol, learned in _learned(problem, method, choices):
        write_csv(paths.trajectory(suite, name, work.seed, protocol), learned.trajectory)
        learned.coefficients.save(paths.coefficients(suite, name, work.seed, protocol))
        checkpoints.save(paths.merged(suite, name, work.seed, protocol), learned.model)
    if choices:
        write_csv(paths.choice(suite, name, work.seed), choices)


def _learned(
    problem: Problem, method: AdaptMethod, choices: list[dict[str, Any]]
) -> Iterator[tuple[str, Learned]]:
    """By protocol what was learned; fills `choices` where values are tried."""
    if not method.choose:
        adaptation = problem.prepare(method)
        for protocol in PROTOCOLS:
            yield protocol, learn(problem, adaptation, protocol, protocol)
        return
    tasks, size = problem.work.params["tasks"], problem.work.options["size"]
    validation = open_split(tasks, size, "val")
    judge = Judge.prepare(
        method.choose.by, problem.encoder, problem.task_vectors, problem.heads, validation
    )
    for protocol in PROTOCOLS:

        def make(number: int, value: Any, protocol: str = protocol) -> Learned:
            adaptation = problem.prepare(method.with_value(value))
            return learn(problem, adaptation, protocol, f"{protocol}-{number}")

        choice = choose(method.choose, judge, make, problem.work.report, f"{protocol}/")
        choices += [{"protocol": protocol} | row for row in choice.rows]
        yield protocol, choice.best


def learn(problem: Problem, adaptation: Adaptation, protocol: str, label: str) -> Learned:
    """Learn on the test images that the protocol allows. label: names files and curves."""
    report, test = problem.work.report, problem.test
    share = problem.evaluate.held_out_fraction
    seen = {n: adapted_rows(len(part.labels), protocol, share) for n, part in test.items()}
    settings, vectors = adaptation.settings, adaptation.engine.task_vectors
    rows = ResumableRows(report.scratch, label)
    state = report.scratch / f"{label}.safetensors" if report.scratch else None
    measure = _accuracy_at(problem, adaptation, protocol)

    def record(
        step: int, loss: dict[str, float], entropy: dict[str, float], parameters: Tensor
    ) -> None:
        coefficients = adaptation.coefficients(parameters)
        measured = measure(step, parameters)
        row = _curve_row(step, loss, entropy, coefficients, measured, vectors.task_names)
        rows.append(row)
        curves = {f"{label}/{k}": v for k, v in row.items() if k != "step" and v is not None}
        report.metrics(curves, step)

    try:
        for step in resumed(partial(adaptation.steps, problem.work.seed, state, seen), state, rows):
            if step.step == 1:
                record(0, {}, {}, adaptation.start())
            record(step.step, step.loss, step.entropy, step.coefficients)
            entropy = sum(step.entropy.values()) / len(step.entropy)
            text = f"{problem.work.options['method']} {label}  entropy {entropy:.3f}"
            report.progress(step.step, settings.steps, text)
    except NonFiniteError as error:
        raise _with_last_good(error, adaptation, report.scratch, label) from error
    learned = vectors.expand(adaptation.coefficients(step.coefficients))
    return Learned(
        adaptation.model(step.coefficients, problem.statistics),
        LearnedCoefficients(learned, vectors.layer_names, vectors.task_names),
        rows.rows,
    )


def _with_last_good(
    error: NonFiniteError, adaptation: Adaptation, scratch: Path | None, label: str
) -> InputError:
    """Write the last good coefficients beside the state file, and name their file in the error."""
    if scratch is None:
        return error
    vectors, path = adaptation.engine.task_vectors, scratch / f"{label}-last-good.safetensors"
    values = vectors.expand(adaptation.coefficients(error.parameters))
    LearnedCoefficients(values, vectors.layer_names, vectors.task_names).save(path)
    return InputError(f"{error}; their coefficients are kept in {path}")


def _accuracy_at(
    problem: Problem, adaptation: Adaptation, protocol: str
) -> Callable[[int, Tensor], dict[str, float]]:
    """Of a step and its parameters the accuracy on a few images; nothing at most steps."""
    evaluate, engine = problem.evaluate, adaptation.engine
    watched = {name: _watched(part, protocol, evaluate) for name, part in problem.test.items()}
    points = set(np.linspace(0, adaptation.settings.steps, evaluate.trajectory_points).round())

    def measure(step: int, parameters: Tensor) -> dict[str, float]:
        if step not in points:
            return {}
        engine.merge(parameters)
        return accuracy(engine.encoder, engine.heads, watched)

    return measure


def _watched(part: LabeledImages, protocol: str, evaluate: Evaluate) -> LabeledImages:
    """The first few of the images that the protocol measures on."""
    rows = measured_rows(len(part.labels), protocol, evaluate.held_out_fraction)
    first = slice(evaluate.trajectory_images)
    return LabeledImages(part.images[rows][first], part.labels[rows][first])


def _curve_row(
    step: int,
    loss: Mapping[str, float],
    entropy: Mapping[str, float],
    coefficients: Tensor,
    measured: Mapping[str, float],
    task_names: tuple[str, ...],
) -> dict[str, Any]:
    """A row of the trajectory; None where nothing was measured at this step."""
    means = coefficients.reshape(-1, len(task_names)).mean(dim=0).tolist()
    return {
        "step": step,
        "loss": sum(loss.values()) if loss else None,
        **{f"entropy_{name}": entropy.get(name) for name in task_names},
        **{f"mean_coefficient_{name}": m for name, m in zip(task_names, means, strict=True)},
        **{f"accuracy_{name}": measured.get(name) for name in (*task_names, "average")},
    }


if __name__ == "__main__":
    run_stage(run)
