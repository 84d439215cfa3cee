"""geometry: cosines between a suite's task vectors, and their lengths."""

import torch

from adamerge_core.analysis import cosine_matrix, inner_products, l2_norms
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.tables import write_json
from tasks.shared.task_vectors import open_task_vectors


def run(work: Work) -> None:
    """Write the task names, the number of layers, the cosines [K, K] and the L2 norms [K]."""
    torch.set_num_threads(work.params["compute"]["threads"])
    model, tasks = work.options["model"], work.params["tasks"]
    task_vectors = open_task_vectors(model, tasks, work.seed)
    products = inner_products(task_vectors)
    geometry = {
        "tasks": list(tasks),
        "layers": len(task_vectors.layers),
        "cosine": cosine_matrix(products).tolist(),
        "l2_norm": l2_norms(products).tolist(),
    }
    write_json(paths.geometry(work.options["suite"], work.seed), geometry)


if __name__ == "__main__":
    run_stage(run)
