"""What the stages that compute on tensors share; needs no vision library."""

from collections.abc import Sequence

import torch

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from tasks.graph.paths import Files
from tasks.suite.schema import Compute, Suite


def set_up(compute: Compute) -> torch.device:
    """Fix the threads of this process; the device to compute on.

    Raises InputError when a CUDA device is asked for and there is none.
    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device = 'cuda': no CUDA device is here; set it to cpu")
    return torch.device(compute.device)


def open_task_vectors(files: Files, task_names: Sequence[str], seed: int) -> TaskVectors:
    """The task vectors of some tasks over the pretrained encoder."""
    paths = {name: files.task_vector(name, seed) for name in task_names}
    return TaskVectors.load(checkpoints.load(files.pretrained), paths)


def merge_inputs(
    suite: Suite, needs: str | None, seed: int
) -> tuple[TaskVectors] | tuple[TaskVectors, dict[str, StateDict]]:
    """What a rule takes by position, on the suite's device: task vectors, and what it needs."""
    files, device = Files(suite.name), set_up(suite.compute)
    task_vectors = open_task_vectors(files, suite.task_names, seed).to(device)
    if needs is None:
        return (task_vectors,)
    statistics = {
        name: checkpoints.load(files.statistic(needs, name, seed)) for name in suite.task_names
    }
    return task_vectors, {
        name: {key: tensor.to(device) for key, tensor in state.items()}
        for name, state in statistics.items()
    }
