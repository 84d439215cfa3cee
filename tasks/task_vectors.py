"""task_vectors: the pretrained encoder subtracted from a fine-tuned one."""

import torch

from adamerge_core import checkpoints
from adamerge_core.task_vectors import TaskVectors
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work


def run(work: Work) -> None:
    """Write the task vector of one fine-tuned encoder."""
    torch.set_num_threads(work.params["compute"]["threads"])
    model, dataset = work.options["model"], work.options["dataset"]
    finetuned = {dataset: checkpoints.load(paths.finetuned(model, dataset, work.seed))}
    vectors = TaskVectors.from_checkpoints(checkpoints.load(paths.pretrained(model)), finetuned)
    vectors.save({dataset: paths.task_vector(model, dataset, work.seed)})
    print(f"task vector of {dataset}: {len(vectors.layers)} layers")


if __name__ == "__main__":
    run_stage(run)
