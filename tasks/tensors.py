"""What the stages that compute on tensors share; needs no vision library."""

from collections.abc import Sequence

import torch

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from tasks.files import Files
from tasks.suite import Compute


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
