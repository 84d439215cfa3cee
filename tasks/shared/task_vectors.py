"""Opening what models are merged from: task vectors, and statistics of the fine-tuned models."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from tasks.graph import paths

Statistics = Mapping[str, Mapping[str, StateDict]]
"""By kind and task."""


def open_task_vectors(
    model: str, task_names: Sequence[str], seed: int, *, in_files: bool = False
) -> TaskVectors:
    """Load the task vectors of some tasks over the pretrained encoder, on the CPU.

    in_files: leave them in their files, for work that reads a layer at a time. Raises InputError
    naming tasks whose fine-tuned models are the same to the bit.
    """
    files = {name: paths.task_vector(model, name, seed) for name in task_names}
    read = TaskVectors.open if in_files else TaskVectors.load
    vectors = read(checkpoints.load(paths.pretrained(model)), files)
    faults = [
        f"{one} and {other}: are the same model; give each task the one fine-tuned on it"
        for one, other in itertools.combinations(task_names, 2)
        if _are_equal(vectors, one, other)
    ]
    if faults:
        raise InputError.listing("tasks with the same content", faults)
    return vectors


def _are_equal(vectors: TaskVectors, one: str, other: str) -> bool:
    i, j = vectors.task_names.index(one), vectors.task_names.index(other)
    return all(torch.equal(stack[i], stack[j]) for stack in vectors.layers.values())


def open_statistics(
    model: str, kinds: Iterable[str], task_names: Sequence[str], seed: int, device: torch.device
) -> Statistics:
    """Load what merge rules ask of the fine-tuned models, onto `device`."""
    return {
        kind: {
            name: {
                key: tensor.to(device)
                for key, tensor in checkpoints.load(
                    paths.statistic(model, kind, name, seed)
                ).items()
            }
            for name in task_names
        }
        for kind in kinds
    }
