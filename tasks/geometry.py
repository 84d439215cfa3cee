"""geometry: how a suite's task vectors lie to each other, and what Ties-Merging makes of them."""

from typing import Any

import torch

from adamerge_core.analysis import (
    block_norms,
    cosine_matrix,
    distance_matrix,
    entry_counts,
    inner_products,
    l2_norms,
    sign_conflicts,
)
from adamerge_core.merging.ties import trim, trim_and_elect
from adamerge_core.task_vectors import TaskVectors
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.tables import write_json
from tasks.shared.task_vectors import open_task_vectors

KEEP = 0.2
"""The share of entries that trimming keeps, as published (arXiv 2306.01708)."""


def run(work: Work) -> None:
    """Write the task names, the number of layers, cosines and distances [K, K], L2 norms [K] over
    all and by block of layers, and percents of conflicting signs.
    """
    torch.set_num_threads(work.params["compute"]["threads"])
    model, tasks = work.options["model"], work.params["tasks"]
    task_vectors = open_task_vectors(model, tasks, work.seed, in_files=True)
    products = inner_products(task_vectors)
    geometry = {
        "tasks": list(tasks),
        "layers": len(task_vectors.layers),
        "cosine": cosine_matrix(products).tolist(),
        "l2_distance": distance_matrix(products).tolist(),
        "l2_norm": l2_norms(products).tolist(),
        "l2_norm_by_block": {n: each.tolist() for n, each in block_norms(task_vectors).items()},
        "sign_conflicts": _conflicts(task_vectors),
    }
    write_json(paths.geometry(work.options["suite"], work.seed), geometry)


def _conflicts(task_vectors: TaskVectors) -> dict[str, Any]:
    """Measure conflicting signs in percent of the weights, before Ties-Merging and after it.

    pairs: [K, K] of the plain task vectors. any: at which any two conflict, of the plain, the
    trimmed and the elected. dropped: of each trimmed vector's entries what the election drops, [K].
    """
    trimmed, elected = trim(task_vectors, KEEP), trim_and_elect(task_vectors, KEEP)
    pairs, plain = sign_conflicts(task_vectors)
    shares = {"plain": plain, "trimmed": sign_conflicts(trimmed)[1]}
    shares["elected"] = sign_conflicts(elected)[1]
    kept, left = entry_counts(trimmed), entry_counts(elected)
    return {
        "pairs": (100 * pairs).tolist(),
        "any": {name: 100 * share for name, share in shares.items()},
        "dropped": (100 * (1 - left / kept.clamp_min(1))).tolist(),
    }


if __name__ == "__main__":
    run_stage(run)
