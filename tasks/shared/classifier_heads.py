"""Heads that come with the fine-tuned checkpoints of classifiers."""

from typing import Any

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList, check_same_classes
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.task_heads import checkpoint_head
from tasks.shared.dataset_classes import read_classes
from tasks.suite.sections import checkpoint_source


def imported_head(dataset: str, entry: dict[str, str], architecture: str) -> StateDict:
    """Read the head of a dataset's checkpoint: weight [classes, D], bias [classes].

    Raises InputError where it has none, one of another number of classes than the dataset, or says
    that they are others.
    """
    source = checkpoint_source(entry)
    tower = read_image_tower(source, architecture=architecture)
    if not tower.head:
        raise InputError(
            f"{source}: has no head; give the whole classifier that was fine-tuned on {dataset}"
        )
    names = tuple(read_classes(dataset)[0])
    if tower.classes:
        check_same_classes({dataset: names, f"the checkpoint {source}": tower.classes.names})
    head = checkpoint_head(tower, ClassList(names, names, source=f"the data set {dataset}"))
    tensors: dict[str, Any] = {"weight": head.weight, "bias": head.bias}
    return tensors
