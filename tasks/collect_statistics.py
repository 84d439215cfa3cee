"""collect_statistics: what a rule needs of a fine-tuned model, from unlabeled images."""

import numpy as np

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.vision.images import open_images
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_heads
from tasks.suite.sections import Statistics

KINDS = ("fisher_diagonal", "gram_matrices")


def run(work: Work) -> None:
    """Write one of KINDS for one dataset's fine-tuned model. Raises InputError for another kind."""
    model, dataset, kind = (work.options[key] for key in ("model", "dataset", "statistic"))
    if kind not in KINDS:
        raise InputError(f"statistic {kind!r}: unknown; known are {', '.join(KINDS)}")
    settings, compute = work.section(Statistics), work.params["compute"]
    device = set_up(compute)
    encoder = open_encoder(work.params["model"], device)
    load_weights(encoder, paths.finetuned(model, dataset, work.seed))
    prepared = open_images(paths.images(dataset, work.options["size"], settings.split))
    images = _drawn(prepared, settings.images, work.seed)
    if kind == "fisher_diagonal":
        head = open_heads(model, [dataset], device)[dataset]
        probes = settings.fisher_probes
        tensors = fisher_diagonal(encoder, head, images, probes=probes, seed=work.seed)
    else:
        tensors = gram_matrices(encoder, images, compute["micro_batch"])
    checkpoints.save(paths.statistic(model, kind, dataset, work.seed), tensors)
    print(f"{kind} of {dataset}: {len(tensors)} tensors from {len(images)} images")


def _drawn(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At random, since a split may be in the order of its classes."""
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[np.sort(rows)]


if __name__ == "__main__":
    run_stage(run)
