"""adapt: merging coefficients learned on test images, unlabeled but for one objective, once a
protocol.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.adamerging import (
    OBJECTIVES,
    AdaptationSettings,
    Engine,
    MergingCoefficients,
    SingularMasks,
    adapt,
    expert_targets,
)
from adamerge_core.adamerging.engine import Parameterisation
from adamerge_core.checkpoints import StateDict
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.merging import PREPROCESSINGS, trim_and_elect
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.graph.build import merge_stage
from tasks.graph.paths import PROTOCOLS, Files
from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import accuracy, open_encoder, open_heads, open_split
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.tables import ResumableRows, write_csv
from tasks.shared.task_vectors import open_task_vectors
from tasks.suite.methods import (
    Adaptation,
    AdaptationMethod,
    AdaptationPlusPlus,
    PreprocessedAdaptation,
)
from tasks.suite.schema import Evaluate, Suite, load_params


def run(suite: Suite, method: str, seed: int, report: Reporter) -> None:
    """Write coefficients, trajectory and merged model of each protocol.

    Raises InputError for a method that is not one of the suite's.
    """
    params, files = suite.merge[method], Files(suite.name)
    settings = adaptation_settings(suite.merge.granularity(method), params)
    plain = open_task_vectors(files, suite.task_names, seed).to(suite.compute.device)
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    test = open_split(files, suite.task_names, "test")
    targets = adaptation_targets(settings, plain, encoder, heads, test)
    engine = Engine(
        encoder,
        _preprocessed(plain, params),
        heads,
        suite.compute.micro_batch,
        suite.compute.precision,
        parameterisation=_parameterisation(settings, params),
    )
    for protocol in PROTOCOLS:
        _adapt(suite, method, protocol, seed, engine, settings, test, targets, report)


def _preprocessed(vectors: TaskVectors, params: Adaptation) -> TaskVectors:
    """The task vectors that coefficients are learned over."""
    if isinstance(params, AdaptationPlusPlus):
        return trim_and_elect(vectors, params.keep)
    if isinstance(params, PreprocessedAdaptation) and params.preprocessing:
        preprocess = PREPROCESSINGS[params.preprocessing]
        return preprocess(vectors, **(params.preprocessing_parameters or {}))
    return vectors


def _parameterisation(
    settings: AdaptationSettings, params: AdaptationMethod
) -> Callable[[TaskVectors], Parameterisation]:
    if settings.granularity != "singular_components":
        return MergingCoefficients
    chosen = {name: getattr(params, name) for name in ("rank_share", "temperature")}
    return partial(SingularMasks, **{k: v for k, v in chosen.items() if v is not None})


def adaptation_targets(
    settings: AdaptationSettings,
    vectors: TaskVectors,
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    test: Mapping[str, LabeledImages],
) -> Mapping[str, np.ndarray | Tensor] | None:
    """Per task what the objective compares predictions with, a row an image; None if nothing."""
    needs = OBJECTIVES[settings.objective].needs
    if needs == "labels":
        return {name: part.labels for name, part in test.items()}
    if needs == "experts":
        images = {name: part.images for name, part in test.items()}
        return dict(expert_targets(encoder, vectors, heads, images))
    return None


def _adapt(
    suite: Suite,
    method: str,
    protocol: str,
    seed: int,
    engine: Engine,
    settings: AdaptationSettings,
    test: Mapping[str, LabeledImages],
    targets: Mapping[str, np.ndarray | Tensor] | None,
    report: Reporter,
) -> None:
    """Learn coefficients on the test images that the protocol allows."""
    files, scratch, vectors = Files(suite.name), report.scratch, engine.task_vectors
    seen = {n: adapted_rows(len(part.labels), protocol, suite.evaluate) for n, part in test.items()}
    images = {name: part.images[seen[name]] for name, part in test.items()}
    allowed = {name: each[seen[name]] for name, each in targets.items()} if targets else None
    watched = {name: _watched(part, protocol, suite.evaluate) for name, part in test.items()}
    rows = ResumableRows(scratch, protocol)
    state = scratch / f"{protocol}.safetensors" if scratch else None
    points = set(np.linspace(0, settings.steps, suite.evaluate.trajectory_points).round())

    def record(
        step: int, loss: dict[str, float], entropy: dict[str, float], parameters: Tensor
    ) -> None:
        measured: dict[str, float] = {}
        if step in points:
            engine.merge(parameters)
            measured = accuracy(engine.encoder, engine.heads, watched)
        coefficients = _coefficients(engine, parameters)
        row = _curve_row(step, loss, entropy, coefficients, measured, suite.task_names)
        rows.append(row)
        curves = {f"{protocol}/{k}": v for k, v in row.items() if k != "step" and v is not None}
        report.metrics(curves, step)

    if state is None or not state.exists():
        record(0, {}, {}, engine.parameterisation.start(settings.granularity, settings.start))
    for step in adapt(engine, images, settings, seed, state, targets=allowed):
        record(step.step, step.loss, step.entropy, step.coefficients)
        entropy = sum(step.entropy.values()) / len(step.entropy)
        text = f"{method} {protocol}  entropy {entropy:.3f}"
        report.progress(step.step, settings.steps, text)
    learned = vectors.expand(_coefficients(engine, step.coefficients))
    write_csv(files.trajectory(method, seed, protocol), rows.rows)
    LearnedCoefficients(learned, vectors.layer_names, vectors.task_names).save(
        files.coefficients(method, seed, protocol)
    )
    checkpoints.save(files.merged(method, seed, protocol), _merged(engine, step.coefficients))


def _coefficients(engine: Engine, parameters: Tensor) -> Tensor:
    """[K] or [L, K], without AdaRank's masks."""
    if isinstance(engine.parameterisation, SingularMasks):
        return engine.parameterisation.coefficients(parameters)
    return parameters


def _merged(engine: Engine, parameters: Tensor) -> StateDict:
    """The model of the parameters learned."""
    if isinstance(engine.parameterisation, MergingCoefficients):
        return engine.task_vectors.merge(engine.task_vectors.expand(parameters))
    engine.merge(parameters)
    return engine.encoder.state_dict()


def adaptation_settings(granularity: str, params: Adaptation) -> AdaptationSettings:
    """The core's settings for a section of the suite; what it leaves out is the default.

    singular_components takes no clamp.
    """
    names = {field.name for field in fields(AdaptationSettings)}
    chosen = params.model_dump(include=names, exclude_none=True) | {"granularity": granularity}
    if granularity == "singular_components":
        chosen["clamp"] = "none"
    return AdaptationSettings(**chosen)


def _watched(part: LabeledImages, protocol: str, settings: Evaluate) -> LabeledImages:
    """The first few of the images that the protocol measures on."""
    rows = measured_rows(len(part.labels), protocol, settings)
    first = slice(settings.trajectory_images)
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.adapt", description=__doc__)
    parser.add_argument(
        "--method", required=True, help="an AdaMerging method of params.yaml, section merge"
    )
    parser.add_argument(
        "--seed", required=True, type=int, help="of the task vectors and the images drawn"
    )
    method, seed = parser.parse_args().method, parser.parse_args().seed
    suite = load_params()
    run_stage(merge_stage(suite, method, seed), lambda report: run(suite, method, seed, report))


if __name__ == "__main__":
    main()
