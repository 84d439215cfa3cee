"""Heads of tasks in files, with the names of their classes; and how they are made."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.checkpoints.torch_files import is_torch_file, read_torch_file
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import (
    ClassList,
    check_same_classes,
    numbered,
    stated_classes,
)
from adamerge_core.vision.classifiers import LinearHead
from adamerge_core.vision.clip import tokenizer
from adamerge_core.vision.heads import ZeroShotHead, zero_shot_weight
from adamerge_core.vision.image_towers import ImageTower
from adamerge_core.vision.linear_probes import fit_probe
from adamerge_core.vision.published_classes import PUBLISHED_CLASSES
from adamerge_core.vision.published_heads import read_head

if TYPE_CHECKING:
    from open_clip.model import CLIP

ZERO_SHOT, LINEAR = "zero_shot", "linear"
"""Kinds of heads: of normalised features without bias, and of features as they are with one."""


@dataclass(frozen=True)
class TaskHead:
    """The frozen head of a task."""

    weight: Tensor
    """[classes, D] float32; of a zero-shot head already times exp(logit_scale)."""
    bias: Tensor | None
    """[classes] float32; None for a zero-shot head."""
    classes: ClassList
    source: str
    """Where it is from, for messages and model cards."""

    @property
    def kind(self) -> str:
        """ZERO_SHOT or LINEAR."""
        return ZERO_SHOT if self.bias is None else LINEAR

    def module(self) -> nn.Module:
        """Make the head: features [N, D] -> logits [N, classes]."""
        return (
            ZeroShotHead(self.weight) if self.bias is None else LinearHead(self.weight, self.bias)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head with its class names to a safetensors file."""
        tensors = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        checkpoints.save(path, tensors, self.metadata())

    def metadata(self) -> dict[str, str]:
        """Describe the head for the metadata of a file: its kind and classes, as JSON."""
        return {"head": json.dumps({"kind": self.kind, **self.classes.facts()})}


def head_path(checkpoint: str | os.PathLike[str]) -> Path:
    """Name the file of the head that lies beside a checkpoint: NAME.head.safetensors."""
    path = Path(checkpoint)
    return path.parent / f"{path.stem}.head.safetensors"


def read_task_head(path: str | os.PathLike[str], classes: ClassList | None = None) -> TaskHead:
    """Read a head: a file that `save` wrote, or one with a weight [classes, D] and perhaps a bias.

    A head that task_vectors or tall_masks pickled is read without running code of it. classes: the
    names, where the file has none; a head without a bias is then a zero-shot one.
    Raises InputError when the file is broken, or no head, or has other classes than those given.
    """
    tensors = _published(path) or checkpoints.load(path)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    faults = []
    if weight is None or tensors.keys() - {"weight", "bias"}:
        faults.append(f"must hold weight and at most bias, and holds {', '.join(sorted(tensors))}")
    elif weight.ndim != 2 or not weight.is_floating_point() or not weight.numel():
        faults.append(f"weight is {weight.dtype} {list(weight.shape)}: must be floats [classes, D]")
    elif bias is not None and bias.shape != weight.shape[:1]:
        faults.append(f"bias {list(bias.shape)}: {len(weight)} classes need [{len(weight)}]")
    faults += checkpoints.non_finite("the head", tensors)
    stated = None if faults else _stated_classes(path)
    named = stated or classes
    if not faults and named is None:
        faults.append("names no classes; give a list of them")
    elif stated and classes and stated.names != classes.names:
        faults.append(f"has other classes than {classes.source}; give one of the two")
    elif weight is not None and named and len(named.names) != len(weight):
        faults.append(
            f"has {len(weight)} classes, and {named.source} {len(named.names)}; give the list that "
            "the head was made with"
        )
    if faults or weight is None or named is None:
        raise InputError.listing(f"head {path}", faults)
    return TaskHead(
        weight.float(), None if bias is None else bias.float(), named, f"file {Path(path).name}"
    )


def _published(path: str | os.PathLike[str]) -> dict[str, Tensor] | None:
    """Read a pickled ClassificationHead; None for what is no pickled module."""
    if not is_torch_file(path) or not read_torch_file(path, PUBLISHED_CLASSES).module:
        return None
    weight, bias, normalize = read_head(Path(path))
    if not normalize:
        return {"weight": weight, "bias": bias}
    if bias.any():
        raise InputError(f"head {path}: normalises features and has a bias; no kind here has both")
    return {"weight": weight}


def _stated_classes(path: str | os.PathLike[str]) -> ClassList | None:
    """Read the class names that a head's own file has."""
    if is_torch_file(path) or "head" not in (entries := checkpoints.read_metadata(path)):
        return None
    return stated_classes(path, entries["head"])


def checkpoint_head(tower: ImageTower, classes: ClassList | None) -> TaskHead:
    """Take the head of a classifier's checkpoint, which has one.

    classes: the names, which count before the checkpoint's own; without either its classes are
    called 0, 1, … Raises InputError where the head has another number of classes.
    """
    weight = tower.head["weight"].float()
    named = classes or tower.classes or numbered(len(weight), f"{tower.source}, by number")
    if len(named.names) != len(weight):
        raise InputError(
            f"{tower.source}: its head has {len(weight)} classes, and {named.source} "
            f"{len(named.names)}; give the list that the head was made with"
        )
    bias = tower.head.get("bias", torch.zeros(len(weight)))  # with one it is no zero-shot head
    return TaskHead(weight, bias.float(), named, "the checkpoint's own")


OWN, SHARED, AVERAGE = "own", "shared", "average"
HEADS = (OWN, SHARED, AVERAGE)
"""Whether each task has a head of its own, or all have one: that which is in all checkpoints, or
the mean of theirs."""


def shared_head(heads: Mapping[str, TaskHead], *, average: bool) -> TaskHead:
    """Make one head of several tasks', which must have the same classes in the same order.

    Without `average` they must be equal to the bit, as those of models that were fine-tuned under
    one frozen head; with it their mean is taken, as that of any layer, which is meant for heads
    that were trained on from one. Raises InputError listing what differs.
    """
    check_same_classes({task: head.classes.names for task, head in heads.items()}, "a shared head")
    (first, one), *others = heads.items()
    faults = [
        f"{task}: its head is {head.kind} and takes {head.weight.shape[1]} features, that of "
        f"{first} is {one.kind} and takes {one.weight.shape[1]}"
        for task, head in others
        if (head.kind, head.weight.shape) != (one.kind, one.weight.shape)
    ]
    if not faults and not average:
        faults = [
            f"{task}: its head is not that of {first}; give one of the two to both, or take the "
            "mean of all heads (head = average)"
            for task, head in others
            if not _equal(head, one)
        ]
    if faults:
        raise InputError.listing("a shared head", faults)
    if not average:
        return replace(one, source=f"{one.source}, shared")
    weight = torch.stack([head.weight for head in heads.values()]).mean(dim=0)
    biases = [head.bias for head in heads.values() if head.bias is not None]
    bias = torch.stack(biases).mean(dim=0) if biases else None
    return replace(one, weight=weight, bias=bias, source=f"the mean of {len(heads)} heads")


def _equal(one: TaskHead, other: TaskHead) -> bool:
    if one.bias is not None and other.bias is not None and not torch.equal(one.bias, other.bias):
        return False
    return torch.equal(one.weight, other.weight)


def zero_shot_head(clip: "CLIP", architecture: str, classes: ClassList) -> TaskHead:
    """Make a head out of the prompts of the class names, by the text tower of `clip`."""
    weight = zero_shot_weight(clip, tokenizer(architecture), classes.names, classes.templates)
    return TaskHead(weight.cpu(), None, classes, "made of the class names")


def linear_probe(found: Tensor, labels: Tensor, classes: ClassList) -> TaskHead:
    """Fit a head on features [N, D] float32 and their labels [N] int64 (see fit_probe)."""
    weight, bias = fit_probe(found, labels, len(classes.names))
    return TaskHead(weight, bias, classes, "linear probe")


def check_width(heads: Mapping[str, TaskHead], width: int) -> None:
    """Raise InputError listing the heads that take features of another width than `width`."""
    faults = [
        f"{name}: its head ({head.source}) takes {head.weight.shape[1]} features, the image tower "
        f"gives {width}; give the head of this model"
        for name, head in heads.items()
        if head.weight.shape[1] != width
    ]
    if faults:
        raise InputError.listing("heads", faults)
