"""task_vectors: subtract the pretrained encoder from each fine-tuned one; cosines and lengths."""

import argparse

import torch

from adamerge_core import checkpoints
from adamerge_core.analysis import cosine_matrix, inner_products, l2_norms
from adamerge_core.task_vectors import TaskVectors
from tasks.graph.paths import Files
from tasks.running.stage import run_stage
from tasks.shared.tables import write_json
from tasks.suite.schema import Suite, load_params


def run(suite: Suite, seed: int) -> None:
    """Write one task vector a task, and their geometry."""
    torch.set_num_threads(suite.compute.threads)  # subtractions, on any device's suite on the CPU
    files, names = Files(suite.name), suite.task_names
    finetuned = {name: checkpoints.load(files.finetuned(name, seed)) for name in names}
    task_vectors = TaskVectors.from_checkpoints(checkpoints.load(files.pretrained), finetuned)
    task_vectors.save({name: files.task_vector(name, seed) for name in names})
    products = inner_products(task_vectors)
    geometry = {
        "tasks": list(names),
        "layers": len(task_vectors.layers),
        "cosine": cosine_matrix(products).tolist(),
        "l2_norm": l2_norms(products).tolist(),
    }
    write_json(files.task_vector_geometry(seed), geometry)
    print(f"{len(names)} task vectors over {len(task_vectors.layers)} layers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.task_vectors", description=__doc__)
    parser.add_argument("--seed", required=True, type=int, help="of the fine-tuned checkpoints")
    seed = parser.parse_args().seed
    run_stage(f"task_vectors@{seed}", lambda _: run(load_params(), seed))


if __name__ == "__main__":
    main()
