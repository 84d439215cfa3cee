"""Accuracy of any checkpoint on folders of images, task by task."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from adamerge_core.errors import InputError, collected
from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.vision.class_lists import (
    ClassList,
    classes_of_folders,
    read_classes,
    with_templates,
)
from adamerge_core.vision.export import is_clip_vit
from adamerge_core.vision.image_files import ImageFiles, Progress, decoded, find_images
from adamerge_core.vision.image_towers import ImageTower, read_image_tower
from adamerge_core.vision.known_models import check_architecture, feature_width, input_size
from adamerge_core.vision.merge_recipes import class_folders, task_faults
from adamerge_core.vision.merged_folders import (
    IMAGE_TOWER,
    is_merged_folder,
    read_heads,
    read_recipe,
)
from adamerge_core.vision.pretrained import (
    encoder_of,
    in_float32,
    read_pretrained,
    require_projection,
    scaling_of,
    stated_architecture,
    whole_clip,
)
from adamerge_core.vision.task_heads import (
    TaskHead,
    check_width,
    checkpoint_head,
    read_task_head,
    zero_shot_head,
)

_BATCH = 64


@dataclass(frozen=True)
class EvaluationRecipe:
    """A checkpoint, and what it is measured on; each mapping is by task."""

    checkpoint: str
    """A file, a model of the hub, or a folder that merge_models wrote."""
    images: Mapping[str, str]
    """Folders <class>/<image>."""
    architecture: str | None = None
    """None: what the checkpoint says."""
    pretrained: str | None = None
    """Where the text tower is from that heads are made with; None: from the checkpoint."""
    classes: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """List what is wrong before any file is looked at, a line each."""
        faults = task_faults(tuple(self.images))
        if not self.images:
            faults.append("images: names no folder; give at least one, as mnist=images/mnist")
        for name in ("classes", "templates", "heads"):
            faults += [
                f"{name}: {task!r} is no task of images ({', '.join(self.images)})"
                for task in getattr(self, name)
                if task not in self.images
            ]
        return faults


@dataclass(frozen=True)
class EvaluationInputs:
    """A recipe and what it names, read."""

    architecture: str
    pretrained: str | None
    tower: ImageTower
    heads: dict[str, TaskHead]
    images: dict[str, ImageFiles]
    labels: dict[str, np.ndarray]


def open_evaluation(recipe: EvaluationRecipe) -> EvaluationInputs:
    """Read all that a recipe names. Raises one InputError that lists every fault."""
    faults = recipe.faults()
    architecture, pretrained = recipe.architecture, recipe.pretrained
    checkpoint, own_heads = recipe.checkpoint, dict[str, TaskHead]()
    with collected(faults):
        if is_merged_folder(checkpoint):
            stated, own_heads = read_recipe(checkpoint), read_heads(checkpoint)
            architecture = architecture or stated["architecture"]
            pretrained = pretrained or stated["pretrained"]
            checkpoint = f"{checkpoint}/{IMAGE_TOWER}"
    with collected(faults):
        architecture = architecture_of(checkpoint, architecture)
    if faults or architecture is None:
        raise InputError.listing("evaluation", faults)
    tower = None
    with collected(faults, checkpoint):
        tower = _with_projection(architecture, checkpoint, pretrained)
    images: dict[str, ImageFiles] = {}
    heads: dict[str, TaskHead] = {}
    lists: dict[str, ClassList] = {}
    for name, folder in recipe.images.items():
        with collected(faults):
            images[name] = find_images(folder)
            head = _head(recipe, name, images[name], own_heads, tower)
            if isinstance(head, TaskHead):
                heads[name] = head
            else:
                lists[name] = head
    if lists and tower:
        with collected(faults):
            heads |= _zero_shot(architecture, tower, pretrained, lists)
    labels = {}
    for name in heads.keys() & images.keys():
        with collected(faults):
            labels[name] = _labels(name, images[name], heads[name].classes)
    with collected(faults):
        check_width(heads, feature_width(architecture))
    if faults or tower is None:
        raise InputError.listing("evaluation", faults, shown=30)
    return EvaluationInputs(architecture, pretrained, tower, heads, images, labels)


def _with_projection(architecture: str, checkpoint: str, pretrained: str | None) -> ImageTower:
    """Read a checkpoint; without a projection of its own it gets the pretrained model's."""
    tower = read_image_tower(checkpoint, architecture=architecture)
    if is_clip_vit(architecture) and not tower.has_projection and pretrained is not None:
        base = read_pretrained(pretrained, architecture)
        tower = read_image_tower(checkpoint, base.tensors, architecture=architecture)
    require_projection(tower, architecture)
    return in_float32(tower)


def architecture_of(checkpoint: str, given: str | None) -> str:
    """Return the architecture that is given, or that the checkpoint states.

    Raises InputError where there is neither, or it is unknown.
    """
    found = given or stated_architecture(checkpoint)
    if found is None:
        raise InputError(f"{checkpoint}: does not say of which architecture it is; give it (model)")
    check_architecture(found)
    return found


def _head(
    recipe: EvaluationRecipe,
    name: str,
    images: ImageFiles,
    own: Mapping[str, TaskHead],
    tower: ImageTower | None,
) -> TaskHead | ClassList:
    classes = read_classes(recipe.classes[name]) if name in recipe.classes else None
    if name in recipe.heads:
        return read_task_head(recipe.heads[name], classes)
    if tower and tower.head:
        return checkpoint_head(tower, classes or class_folders(tower, images))
    if classes is None and name in own:
        return own[name]
    if classes is None and not images.classes:
        raise InputError(f"images {images.folder}: has no class folders, and accuracy needs labels")
    named = classes or classes_of_folders(images.classes, f"the folders of {images.folder}")
    return with_templates(named, recipe.templates.get(name))


def _zero_shot(
    architecture: str, tower: ImageTower, pretrained: str | None, lists: Mapping[str, ClassList]
) -> dict[str, TaskHead]:
    """Make heads by the text tower of the checkpoint, or of the pretrained model."""
    if not tower.text_tower and pretrained is not None:
        tower = in_float32(read_pretrained(pretrained, architecture))
    if not tower.text_tower:
        raise InputError(
            f"{', '.join(lists)}: no head can be made of class names, as {tower.source} has no "
            "text tower; give files of heads (heads), or the pretrained CLIP (pretrained)"
        )
    clip = whole_clip(architecture, tower)
    return {name: zero_shot_head(clip, architecture, each) for name, each in lists.items()}


def _labels(name: str, images: ImageFiles, classes: ClassList) -> np.ndarray:
    labels = images.labels(classes)
    if labels is None:
        raise InputError(
            f"{name}: no folder of {images.folder} is a class of {classes.source}, and accuracy "
            "needs labels"
        )
    return labels


def folder_accuracies(
    recipe: EvaluationRecipe, device: str = "cpu", progress: Progress | None = None
) -> dict[str, float]:
    """Measure the top-1 accuracy of a checkpoint in percent, by task, and `average`.

    Images are decoded as they are needed. progress: is told (done, of how many, of what). Raises
    InputError listing what is wrong with the recipe and the files that it names.
    """
    return input_accuracies(open_evaluation(recipe), device, progress or (lambda *_: None))


def input_accuracies(inputs: EvaluationInputs, device: str, progress: Progress) -> dict[str, float]:
    """Do what folder_accuracies does, with a recipe's files read already."""
    pixels = scaling_of(inputs.architecture, inputs.pretrained)
    tower = inputs.tower
    encoder = encoder_of(inputs.architecture, tower.tensors, tower.source, pixels).to(device)
    size = input_size(inputs.architecture)
    found = {}
    for name, images in inputs.images.items():
        head = inputs.heads[name].module().to(torch.device(device))
        hits = [
            correct(encoder, head, arrays, inputs.labels[name][rows])
            for rows, arrays in decoded(images, size, _BATCH, progress)
        ]
        found[name] = percent(np.concatenate(hits))
    return with_average(found)
