"""adapt: AdaMerging's coefficients learned on unlabeled test images, once a protocol."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from adamerge_core.coefficients import Coefficients
from adamerge_core.merging import trim_and_elect
from adamerge_core.vision.images import LabeledImages
from tasks.files import PROTOCOLS, Files
from tasks.models import accuracy, open_encoder, open_heads, open_split
from tasks.outputs import ResumableRows, write_csv
from tasks.protocols import adapted_rows, measured_rows
from tasks.stage import Reporter, run_stage
from tasks.suite import Adaptation, AdaptationPlusPlus, Evaluate, Suite, load_params
from tasks.tensors import open_task_vectors


def run(suite: Suite, method: str, seed: int, report: Reporter) -> None:
    """Write coefficients, trajectory and merged model of each protocol.

    Raises InputError for a method that is not one of the suite's.
    """
    params = suite.merge[method]
    vectors = open_task_vectors(Files(suite.name), suite.task_names, seed)
    vectors = vectors.to(suite.compute.device)
    if isinstance(params, AdaptationPlusPlus):
        vectors = trim_and_elect(vectors, params.keep)
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    engine = Engine(encoder, vectors, heads, suite.compute.micro_batch)
    for protocol in PROTOCOLS:
        _adapt(suite, method, protocol, seed, engine, report)


def _adapt(
    suite: Suite, method: str, protocol: str, seed: int, engine: Engine, report: Reporter
) -> None:
    """Learn coefficients on the unlabeled test images that the protocol allows."""
    files, scratch, vectors = Files(suite.name), report.scratch, engine.task_vectors
    test = open_split(files, suite.task_names, "test")
    unlabeled = {
        name: part.images[adapted_rows(len(part.labels), protocol, suite.evaluate)]
        for name, part in test.items()
    }
    watched = {name: _watched(part, protocol, suite.evaluate) for name, part in test.items()}
    rows = ResumableRows(scratch, protocol)
    state = scratch / f"{protocol}.safetensors" if scratch else None
    settings = adaptation_settings(method, suite.merge[method])
    points = set(np.linspace(0, settings.steps, suite.evaluate.trajectory_points).round())

    def record(step: int, entropy: dict[str, float], coefficients: Tensor) -> None:
        measured: dict[str, float] = {}
        if step in points:
            engine.merge(coefficients)
            measured = accuracy(engine.encoder, engine.heads, watched)
        row = _curve_row(step, entropy, coefficients, measured, suite.task_names)
        rows.append(row)
        curves = {f"{protocol}/{k}": v for k, v in row.items() if k != "step" and v is not None}
        report.metrics(curves, step)

    if state is None or not state.exists():
        record(0, {}, torch.full((len(suite.task_names),), settings.start))
    for step in adapt(engine, unlabeled, settings, seed, state):
        record(step.step, step.entropy, step.coefficients)
        entropy = sum(step.entropy.values()) / len(step.entropy)
        text = f"{method} {protocol}  entropy {entropy:.3f}"
        report.progress(step.step, settings.steps, text)
    learned = vectors.expand(step.coefficients)
    write_csv(files.trajectory(method, seed, protocol), rows.rows)
    Coefficients(learned, vectors.layer_names, vectors.task_names).save(
        files.coefficients(method, seed, protocol)
    )
    checkpoints.save(files.merged(method, seed, protocol), vectors.merge(learned))


def adaptation_settings(method: str, params: Adaptation) -> AdaptationSettings:
    """The core's settings for a section of the suite; the method's name says the granularity."""
    granularity = "task_wise" if method.startswith("task_wise") else "layer_wise"
    fields = ("steps", "images_per_task", "learning_rate", "start")
    return AdaptationSettings(granularity, **{name: getattr(params, name) for name in fields})


def _watched(part: LabeledImages, protocol: str, settings: Evaluate) -> LabeledImages:
    """The first few of the images that the protocol measures on."""
    rows = measured_rows(len(part.labels), protocol, settings)
    first = slice(settings.trajectory_images)
    return LabeledImages(part.images[rows][first], part.labels[rows][first])


def _curve_row(
    step: int,
    entropy: Mapping[str, float],
    coefficients: Tensor,
    measured: Mapping[str, float],
    task_names: tuple[str, ...],
) -> dict[str, Any]:
    """A row of the trajectory; None where nothing was measured at this step."""
    means = coefficients.reshape(-1, len(task_names)).mean(dim=0).tolist()
    return {
        "step": step,
        "loss": sum(entropy.values()) if entropy else None,
        **{f"entropy_{name}": entropy.get(name) for name in task_names},
        **{f"mean_coefficient_{name}": m for name, m in zip(task_names, means, strict=True)},
        **{f"accuracy_{name}": measured.get(name) for name in (*task_names, "average")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.adapt", description=__doc__)
    parser.add_argument(
        "--method", required=True, help="an AdaMerging method of params.yaml, section merge"
    )
    parser.add_argument(
        "--seed", required=True, type=int, help="of the task vectors and the images drawn"
    )
    method, seed = parser.parse_args().method, parser.parse_args().seed
    run_stage(f"adapt@{method}-{seed}", lambda report: run(load_params(), method, seed, report))


if __name__ == "__main__":
    main()
