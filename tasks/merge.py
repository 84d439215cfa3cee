"""merge: one merged model by one method; AdaMerging once a protocol."""

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from adamerge_core.checkpoints import StateDict
from adamerge_core.coefficients import Coefficients
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.merging import RULES, trim_and_elect
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.files import PROTOCOLS, Files
from tasks.graph import merge_stage
from tasks.models import (
    ResumableRows,
    open_encoder,
    open_heads,
    open_split,
    open_task_vectors,
    set_up,
    write_csv,
)
from tasks.protocols import adapted_rows, measured_rows
from tasks.stage import Reporter, run_stage
from tasks.suite import Adaptation, Evaluate, Suite, load_params


def run(suite: Suite, method: str, seed: int, report: Reporter) -> None:
    """Merge the task vectors of `seed` by `method` and write what the graph says.

    Raises InputError for a method that is not one of the suite's.
    """
    params = suite.merge[method]
    device = set_up(suite.compute)
    files = Files(suite.name)
    task_vectors = open_task_vectors(files, suite.task_names, seed).to(device)
    if isinstance(params, Adaptation):
        for protocol in PROTOCOLS:
            _adapt(suite, method, protocol, seed, task_vectors, report)
    elif method.endswith("_best"):
        _sweep(suite, method, seed, task_vectors, report)
    else:
        checkpoints.save(
            files.merged(method, seed), RULES[method](task_vectors, **params.model_dump())
        )


def _sweep(
    suite: Suite, method: str, seed: int, task_vectors: TaskVectors, report: Reporter
) -> None:
    """Merge by every scaling and keep the model with the best validation accuracy."""
    files = Files(suite.name)
    params = suite.merge[method].model_dump()
    scalings = params.pop("scalings")
    rule = RULES[method.removesuffix("_best")]
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    data = open_split(files, suite.task_names, "val")
    rows: list[dict[str, Any]] = []
    models: list[StateDict] = []
    for done, scaling in enumerate(scalings, start=1):
        models.append(rule(task_vectors, scaling=scaling, **params))
        encoder.load_state_dict(models[-1])
        rows.append({"scaling": scaling, **_accuracy(encoder, heads, data)})
        report.metrics({"validation accuracy": rows[-1]["average"]}, done)
        report.progress(done, len(scalings), f"scaling {scaling}: {rows[-1]['average']:.1f} %")
    best = max(range(len(rows)), key=lambda index: rows[index]["average"])
    write_csv(files.sweep(method, seed), rows)
    checkpoints.save(files.merged(method, seed), models[best])


def _adapt(
    suite: Suite, method: str, protocol: str, seed: int, task_vectors: TaskVectors, report: Reporter
) -> None:
    """Learn coefficients on the unlabeled test images that the protocol allows."""
    files, params, scratch = Files(suite.name), suite.merge[method], report.scratch
    keep = getattr(params, "keep", None)
    vectors = task_vectors if keep is None else trim_and_elect(task_vectors, keep)
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    engine = Engine(encoder, vectors, heads)
    test = open_split(files, suite.task_names, "test")
    unlabeled = {
        name: part.images[adapted_rows(len(part.labels), protocol, suite.evaluate)]
        for name, part in test.items()
    }
    seen = {name: _watched(part, protocol, suite.evaluate) for name, part in test.items()}
    rows = ResumableRows(scratch, protocol)
    state = scratch / f"{protocol}.safetensors" if scratch else None
    settings = adaptation_settings(method, params)
    watched = set(np.linspace(1, settings.steps, suite.evaluate.trajectory_points).round())
    for step in adapt(engine, unlabeled, settings, seed, state):
        row = _curve_row(step.step, step.entropy, step.coefficients, suite.task_names)
        if step.step in watched:
            engine.merge(step.coefficients)
            measured = _accuracy(encoder, heads, seen)
            row |= {f"accuracy_{name}": value for name, value in measured.items()}
        else:
            row |= dict.fromkeys([f"accuracy_{n}" for n in (*suite.task_names, "average")])
        rows.append(row)
        numbers = {f"{protocol}/{k}": v for k, v in row.items() if k != "step" and v is not None}
        report.metrics(numbers, step.step)
        text = f"{method} {protocol}  entropy {row['loss'] / len(suite.task_names):.3f}"
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


def _accuracy(
    encoder: nn.Module, heads: dict[str, nn.Module], data: dict[str, LabeledImages]
) -> dict[str, float]:
    """Top-1 in percent per task and `average`."""
    return with_average(
        {
            name: percent(correct(encoder, heads[name], part.images, part.labels))
            for name, part in data.items()
        }
    )


def _curve_row(
    step: int, entropy: dict[str, float], coefficients: torch.Tensor, task_names: tuple[str, ...]
) -> dict[str, Any]:
    means = coefficients.reshape(-1, len(task_names)).mean(dim=0).tolist()
    return {
        "step": step,
        "loss": sum(entropy.values()),
        **{f"entropy_{name}": entropy[name] for name in task_names},
        **{f"mean_coefficient_{name}": m for name, m in zip(task_names, means, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.merge", description=__doc__)
    parser.add_argument("--method", required=True, help="a method of params.yaml, section merge")
    parser.add_argument("--seed", required=True, type=int, help="of fine-tuning and adaptation")
    method, seed = parser.parse_args().method, parser.parse_args().seed
    suite = load_params()
    _check_method(suite, method)
    run_stage(merge_stage(suite, method, seed), lambda report: run(suite, method, seed, report))


def _check_method(suite: Suite, method: str) -> None:
    try:
        _ = suite.merge[method]
    except InputError as error:
        raise SystemExit(f"tasks.merge: {error}") from None


if __name__ == "__main__":
    main()
