"""What is merged, how, and on which images: a recipe, and all that it names, read and checked."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core import checkpoints
from adamerge_core.checkpoints.torch_files import is_torch_file
from adamerge_core.errors import InputError, collected
from adamerge_core.method_choice import MethodChoice
from adamerge_core.vision.class_lists import (
    ClassList,
    check_same_classes,
    classes_of_folders,
    read_classes,
    with_templates,
)
from adamerge_core.vision.image_files import ImageFiles, find_images
from adamerge_core.vision.image_towers import ImageTower, check_different, read_image_tower
from adamerge_core.vision.known_models import check_architecture, feature_width
from adamerge_core.vision.pretrained import (
    in_float32,
    read_pretrained,
    require_projection,
)
from adamerge_core.vision.task_heads import (
    AVERAGE,
    HEADS,
    OWN,
    TaskHead,
    check_width,
    checkpoint_head,
    head_path,
    read_task_head,
    shared_head,
)

_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")

_Sources = Mapping[str, str]


@dataclass(frozen=True)
class MergeRecipe:
    """A merge of fine-tuned models, without a suite; each mapping is by task."""

    architecture: str
    """One of open_clip's, or of this project's own."""
    pretrained: str
    """A path, a model of the Hugging Face hub, a tag of open_clip's, or `imagenet`."""
    finetuned: _Sources
    """Paths, or models of the hub."""
    method: str
    """A merge rule, or an adaptation: task_wise, layer_wise or singular_components."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the method: see MethodChoice.read."""
    images: _Sources = field(default_factory=dict)
    """Folders: <class>/<image> gives labels, with which the result is measured; others do not."""
    classes: _Sources = field(default_factory=dict)
    """Lists of class names, or names of the catalogue: see read_classes."""
    templates: _Sources = field(default_factory=dict)
    """Files of prompts; "a photo of a {}." where there is none."""
    heads: _Sources = field(default_factory=dict)
    """Files of heads: see read_task_head. Unnamed, the one beside a checkpoint is taken."""
    choose: Mapping[str, Any] = field(default_factory=dict)
    """Values of a setting to try on the images, and a criterion: {"scaling": [0.1, 0.3], "by":
    "entropy"}."""
    head: str = OWN
    """own: each task has its own; shared: all have one, which must be in all their checkpoints;
    average: the mean of theirs (see shared_head)."""
    seed: int = 0

    def faults(self) -> list[str]:
        """List what is wrong before any file is looked at, a line each."""
        faults: list[str] = []
        with collected(faults):
            check_architecture(self.architecture)
        faults += task_faults(tuple(self.finetuned))
        if not self.finetuned:
            faults.append(
                "finetuned: names no model; give at least one, as mnist=mnist.safetensors"
            )
        for name in ("images", "classes", "templates", "heads"):
            faults += [
                f"{name}: {task!r} is no task of finetuned ({', '.join(self.finetuned)})"
                for task in getattr(self, name)
                if task not in self.finetuned
            ]
        if self.head not in HEADS:
            faults.append(f"head = {self.head!r}: must be one of {', '.join(HEADS)}")
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed = {self.seed}: must be from 0 to 2**32 - 1")
        with collected(faults):
            method = self.choice()
            faults += [
                f"task {task}: method {self.method} needs images of it, a folder without labels"
                for task in self.finetuned
                if method.needs_images and task not in self.images
            ]
        return faults

    def choice(self) -> MethodChoice:
        """Read the method. Raises InputError listing what is wrong with it."""
        return MethodChoice.read(self.method, self.settings, len(self.finetuned), self.choose)

    def as_json(self) -> dict[str, Any]:
        """Everything that the recipe says, as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class TaskInputs:
    """What there is of one task."""

    tower: ImageTower
    head: TaskHead | ClassList | None
    """A head, or the classes that a zero-shot head is to be made for; None where none is needed."""
    images: ImageFiles | None
    labels: np.ndarray | None
    """[N] int64, of the images; None where these have no class folders."""


@dataclass(frozen=True)
class MergeInputs:
    """A recipe and what it names, read."""

    recipe: MergeRecipe
    method: MethodChoice
    pretrained: ImageTower
    tasks: dict[str, TaskInputs]

    def identity(self) -> dict[str, Any]:
        """Describe the work as JSON, so that unfinished work of another one can be told from it."""
        return {
            "recipe": self.recipe.as_json(),
            "pretrained": self.pretrained.sha256,
            "finetuned": {name: task.tower.sha256 for name, task in self.tasks.items()},
            "images": {n: task.images.identity for n, task in self.tasks.items() if task.images},
        }


def task_faults(names: tuple[str, ...]) -> list[str]:
    """List what keeps names from being those of tasks, and of files, a line each."""
    return [
        f"task {name!r}: must be letters, digits, -, _ and ., at most 50, and not 'average'"
        for name in names
        if not _TASK.fullmatch(name) or name == "average"
    ]


def open_inputs(recipe: MergeRecipe) -> MergeInputs:
    """Read all that a recipe names. Raises one InputError that lists every fault."""
    faults = recipe.faults()
    if faults:
        raise InputError.listing("merge", faults)
    pretrained = None
    with collected(faults, "pretrained"):
        pretrained = read_pretrained(recipe.pretrained, recipe.architecture)
        require_projection(pretrained, recipe.architecture)
    tasks: dict[str, TaskInputs] = {}
    for name in recipe.finetuned:
        with collected(faults, name):
            tasks[name] = _task(recipe, name, pretrained)
    with collected(faults):
        check_different({name: task.tower for name, task in tasks.items()})
    if pretrained and len(tasks) == len(recipe.finetuned):
        with collected(faults):
            _check_heads(recipe, pretrained, tasks)
        with collected(faults):
            tasks = tasks if recipe.head == OWN else _with_one_head(recipe, tasks)
    if faults or pretrained is None:
        raise InputError.listing("merge", faults, _SHOWN)
    return MergeInputs(recipe, recipe.choice(), in_float32(pretrained), tasks)


_SHOWN = 30


def _task(recipe: MergeRecipe, name: str, pretrained: ImageTower | None) -> TaskInputs:
    """Read what there is of a task. Raises InputError listing every fault."""
    faults: list[str] = []
    tower = images = classes = head = labels = None
    with collected(faults, recipe.finetuned[name]):
        tensors = pretrained.tensors if pretrained else None
        tower = read_image_tower(recipe.finetuned[name], tensors, architecture=recipe.architecture)
        if pretrained:
            _check_origin(recipe.finetuned[name], pretrained)
    with collected(faults):
        images = find_images(recipe.images[name]) if name in recipe.images else None
    with collected(faults):
        classes = read_classes(recipe.classes[name]) if name in recipe.classes else None
    if tower:
        with collected(faults):
            head = task_head(recipe, name, classes, images, tower)
    known = head.classes if isinstance(head, TaskHead) else head
    if images and known:
        with collected(faults):
            labels = images.labels(known)
    if faults or tower is None:
        raise InputError.listing(name, faults)
    return TaskInputs(in_float32(tower), head, images, labels)


def task_head(
    recipe: MergeRecipe,
    name: str,
    classes: ClassList | None,
    images: ImageFiles | None,
    tower: ImageTower,
) -> TaskHead | ClassList | None:
    """Read a task's head, or say of which classes a zero-shot one is to be made.

    A file that is named counts first, then the head in a classifier's checkpoint, then class names
    that are named, then the file beside the checkpoint, then the names of the class folders.
    """
    beside = head_path(recipe.finetuned[name])
    if name in recipe.heads:
        return read_task_head(recipe.heads[name], classes)
    if tower.head:
        return checkpoint_head(tower, classes or class_folders(tower, images))
    if classes is None and beside.is_file():
        return read_task_head(beside)
    if classes is None and images and images.classes:
        classes = classes_of_folders(images.classes, f"the folders of {images.folder}")
    return with_templates(classes, recipe.templates.get(name)) if classes else None


def class_folders(tower: ImageTower, images: ImageFiles | None) -> ClassList | None:
    """Name classes by the folders of images, where a classifier's checkpoint does not name them."""
    if tower.classes or images is None or not images.classes:
        return None
    return classes_of_folders(images.classes, f"the folders of {images.folder}")


def _with_one_head(recipe: MergeRecipe, tasks: Mapping[str, TaskInputs]) -> dict[str, TaskInputs]:
    """Give all tasks one head, or one class list to make a head of, with the prompts of all.

    Raises InputError where class names, heads or kinds of heads differ.
    """
    heads = {name: task.head for name, task in tasks.items() if isinstance(task.head, TaskHead)}
    lists = {name: task.head for name, task in tasks.items() if isinstance(task.head, ClassList)}
    if len(heads) not in (0, len(tasks)) or len(lists) not in (0, len(tasks)):
        has = ", ".join(heads) or ", ".join(lists)
        raise InputError(
            f"head = {recipe.head!r}: {has} have a head or class names, other tasks not; give the "
            "file of one head to all (heads), or the same class list (classes)"
        )
    head: TaskHead | ClassList | None = None
    if heads:
        head = shared_head(heads, average=recipe.head == AVERAGE)
    elif lists:
        names = {name: each.names for name, each in lists.items()}
        check_same_classes(names, "a shared head")
        prompts = dict.fromkeys(text for each in lists.values() for text in each.templates)
        head = replace(next(iter(lists.values())), templates=tuple(prompts))
    return {name: replace(task, head=head) for name, task in tasks.items()}


def _check_origin(source: str, pretrained: ImageTower) -> None:
    """Raise InputError where a file says that it was fine-tuned from other weights."""
    if not Path(source).is_file() or is_torch_file(source):
        return
    stated = checkpoints.read_metadata(source).get("pretrained_sha256")
    if stated not in (None, pretrained.sha256):
        raise InputError(
            f"{source}: says that it was fine-tuned from weights of sha256 {stated[:16]}…, "
            f"and {pretrained.source} is {pretrained.sha256[:16]}…; give the model that it is from"
        )


def _check_heads(
    recipe: MergeRecipe, pretrained: ImageTower, tasks: Mapping[str, TaskInputs]
) -> None:
    """Raise InputError listing the tasks without a head that the method needs, and misfits."""
    method, faults = recipe.choice(), list[str]()
    width = feature_width(recipe.architecture)
    with collected(faults):
        made = {n: task.head for n, task in tasks.items() if isinstance(task.head, TaskHead)}
        check_width(made, width)
    for name, task in tasks.items():
        if task.head is None and method.needs_images:
            faults.append(
                f"{name}: has no head; give its class names (classes, of which a zero-shot head is "
                "made), or the file of a head (heads)"
            )
        if isinstance(task.head, ClassList) and task.images and not pretrained.text_tower:
            faults.append(
                f"{name}: no head can be made of {task.head.source}, as {pretrained.source} has no "
                f"text tower; give the file of a head, as `adamerge finetune` writes it"
            )
        if method.needs_labels and task.labels is None:
            faults.append(f"{name}: its images have no labels, and {recipe.method} needs them here")
    if faults:
        raise InputError.listing("heads", faults)
