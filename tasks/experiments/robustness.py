"""evaluate_corrupted: task arithmetic and layer-wise AdaMerging on corrupted test images.

As in the paper's robustness study, the corrupted tasks alone are merged, and AdaMerging adapts to
the corrupted images that it is measured on.
"""

import argparse

import numpy as np

from adamerge_core.adamerging import Engine, adapt
from adamerge_core.merging import task_arithmetic
from adamerge_core.vision.images import LabeledImages, open_array
from tasks.adapt import adaptation_settings
from tasks.graph.build import evaluate_corrupted_stage
from tasks.graph.paths import Files
from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import accuracy, open_encoder, open_heads
from tasks.shared.tables import write_json
from tasks.shared.task_vectors import open_task_vectors
from tasks.suite.schema import Suite, load_params

_METHOD = "layer_wise_adamerging"


def run(suite: Suite, corruption: str, seed: int, report: Reporter) -> None:
    """Write percent per task and their mean for both methods; `clean` is the images as they are."""
    files, names = Files(suite.name), suite.corrupt.tasks
    images = {name: _images(suite, name, corruption) for name in names}
    labels = {name: open_array(files.labels(name, "test"), 1) for name in names}
    data = {name: LabeledImages(images[name], labels[name][: len(images[name])]) for name in names}
    encoder, heads = open_encoder(suite), open_heads(suite, names)
    task_vectors = open_task_vectors(files, names, seed).to(suite.compute.device)

    encoder.load_state_dict(task_arithmetic(task_vectors, suite.merge["task_arithmetic"].scaling))
    methods = {"task_arithmetic": accuracy(encoder, heads, data)}
    engine = Engine(
        encoder, task_vectors, heads, suite.compute.micro_batch, suite.compute.precision
    )
    settings = adaptation_settings("layer_wise", suite.evaluate_corrupted.adaptation)
    state = report.scratch / "adaptation.safetensors" if report.scratch else None
    for step in adapt(engine, images, settings, seed, state):
        loss = sum(step.entropy.values())
        report.metrics({"loss": loss}, step.step)
        text = f"{_METHOD} on {corruption}  entropy {loss / len(names):.3f}"
        report.progress(step.step, settings.steps, text)
    engine.merge(step.coefficients)
    methods[_METHOD] = accuracy(encoder, heads, data)
    content = {
        "corruption": corruption,
        "severity": 0 if corruption == "clean" else suite.evaluate_corrupted.severity,
        "seed": seed,
        "tasks": list(names),
        "methods": methods,
    }
    write_json(files.corrupted_evaluation(corruption, seed), content)


def _images(suite: Suite, task_name: str, corruption: str) -> np.ndarray:
    """uint8 [N, H, W, 3]: the images at the severity to evaluate."""
    files = Files(suite.name)
    if corruption == "clean":
        return open_array(files.images(task_name, "test"), 4)[: suite.corrupt.images]
    row = suite.corrupt.severities.index(suite.evaluate_corrupted.severity)
    return open_array(files.corrupted(task_name, corruption), 5)[row]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.experiments.robustness", description=__doc__
    )
    parser.add_argument("--corruption", required=True, help="one of evaluate_corrupted.corruptions")
    parser.add_argument("--seed", required=True, type=int, help="of fine-tuning and adaptation")
    corruption, seed = parser.parse_args().corruption, parser.parse_args().seed
    run_stage(
        evaluate_corrupted_stage(corruption, seed),
        lambda report: run(load_params(), corruption, seed, report),
    )


if __name__ == "__main__":
    main()
