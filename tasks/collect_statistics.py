"""statistics: what a rule needs of a fine-tuned model, from unlabeled images of its task."""

import argparse

import numpy as np

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.vision.images import open_array
from tasks.graph.build import statistics_stage
from tasks.graph.paths import Files
from tasks.running.stage import run_stage
from tasks.shared.encoders import load_weights, open_encoder, open_heads
from tasks.suite.schema import Statistics, Suite, load_params

KINDS = ("fisher_diagonal", "gram_matrices")


def run(suite: Suite, kind: str, task_name: str, seed: int) -> None:
    """Write one of KINDS for one task's fine-tuned model.

    Raises InputError for another kind, or a suite without the section statistics.
    """
    files, settings = Files(suite.name), suite.statistics
    if settings is None:
        raise InputError(f"suite {suite.name} has no section statistics; add it to params.yaml")
    if kind not in KINDS:
        raise InputError(f"statistic {kind!r}: unknown; known are {', '.join(KINDS)}")
    encoder, heads = open_encoder(suite), open_heads(suite, [task_name])
    load_weights(encoder, files.finetuned(task_name, seed))
    images = _drawn(open_array(files.images(task_name, settings.split), 4), settings, seed)
    if kind == "fisher_diagonal":
        head, probes = heads[task_name], settings.fisher_probes
        tensors = fisher_diagonal(encoder, head, images, probes=probes, seed=seed)
    else:
        tensors = gram_matrices(encoder, images, suite.compute.micro_batch)
    checkpoints.save(files.statistic(kind, task_name, seed), tensors)
    print(f"{kind} of {task_name}: {len(tensors)} tensors from {len(images)} images")


def _drawn(images: np.ndarray, settings: Statistics, seed: int) -> np.ndarray:
    """At random, since a split may be in the order of its classes."""
    rows = np.random.default_rng(seed).permutation(len(images))[: settings.images]
    return images[np.sort(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.collect_statistics", description=__doc__)
    parser.add_argument("--statistic", required=True, help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--task", required=True, help="a task of params.yaml, section download")
    parser.add_argument("--seed", required=True, type=int, help="of fine-tuning; draws the images")
    options = parser.parse_args()
    run_stage(
        statistics_stage(options.statistic, options.task, options.seed),
        lambda _: run(load_params(), options.statistic, options.task, options.seed),
    )


if __name__ == "__main__":
    main()
