"""collect_statistics: what a rule needs of a fine-tuned model, from unlabeled images."""

import numpy as np

from adamerge_core import checkpoints
from adamerge_core.statistics import collect
from adamerge_core.vision.images import open_images
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_heads
from tasks.suite.sections import Statistics


def run(work: Work) -> None:
    """Write a statistic of one dataset's fine-tuned model."""
    model, dataset, kind = (work.options[key] for key in ("model", "dataset", "statistic"))
    settings, compute = work.section(Statistics), work.params["compute"]
    device = set_up(compute)
    encoder = open_encoder(work.params["model"], device)
    load_weights(encoder, paths.finetuned(model, dataset, work.seed))
    prepared = open_images(paths.images(dataset, work.options["size"], settings.split))
    images = _drawn(prepared, settings.images, work.seed)
    tensors = collect(
        kind,
        encoder,
        open_heads(model, [dataset], device)[dataset],
        images,
        probes=settings.fisher_probes,
        seed=work.seed,
        batch_size=compute["micro_batch"],
    )
    checkpoints.save(paths.statistic(model, kind, dataset, work.seed), tensors)
    print(f"{kind} of {dataset}: {len(tensors)} tensors from {len(images)} images")


def _drawn(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At random, since a split may be in the order of its classes."""
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[np.sort(rows)]


if __name__ == "__main__":
    run_stage(run)
