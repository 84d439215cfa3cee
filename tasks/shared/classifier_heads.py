"""Heads that come with the fine-tuned checkpoints of classifiers."""

from collections.abc import Mapping
from typing import Any

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList, check_same_classes
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.pinned_models import source_of
from adamerge_core.vision.task_heads import TaskHead, checkpoint_head, shared_head
from tasks.shared.encoders import read_classes


def imported_head(dataset: str, entry: dict[str, str], architecture: str) -> StateDict:
    """Read the head of a dataset's checkpoint: weight [classes, D], bias [classes] (see _read)."""
    return _tensors(_read(dataset, entry, architecture))


def joined_head(
    entries: Mapping[str, dict[str, str]], architecture: str, *, average: bool
) -> StateDict:
    """Read the one head of several datasets' checkpoints, or their mean (see shared_head)."""
    heads = {task: _read(task, entry, architecture) for task, entry in entries.items()}
    return _tensors(shared_head(heads, average=average))


def _tensors(head: TaskHead) -> StateDict:
    tensors: dict[str, Any] = {"weight": head.weight, "bias": head.bias}
    return tensors


def _read(dataset: str, entry: dict[str, str], architecture: str) -> TaskHead:
    """Read a head.

    Raises InputError where it has none, one of another number of classes than the dataset, or says
    that they are others.
    """
    source = source_of(entry)
    tower = read_image_tower(source, architecture=architecture)
    if not tower.head:
        raise InputError(
            f"{source}: has no head; give the whole classifier that was fine-tuned on {dataset}"
        )
    names = tuple(read_classes(dataset)[0])
    if tower.classes:
        stated = {dataset: names, f"the checkpoint {source}": tower.classes.names}
        check_same_classes(stated, f"the head of {dataset}")
    return checkpoint_head(tower, ClassList(names, names, source=f"the data set {dataset}"))
