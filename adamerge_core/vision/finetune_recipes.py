"""Fine-tuning on a folder of images, without a suite: a checkpoint and its head."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from adamerge_core.errors import InputError, collected
from adamerge_core.method_values import by_type
from adamerge_core.parameters import of_dataclass
from adamerge_core.vision.architectures import ARCHITECTURES, is_classifier
from adamerge_core.vision.class_lists import (
    ClassList,
    classes_of_folders,
    read_classes,
    with_templates,
)
from adamerge_core.vision.image_files import ImageFiles, find_images
from adamerge_core.vision.image_towers import ImageTower
from adamerge_core.vision.known_models import check_architecture
from adamerge_core.vision.pretrained import (
    in_float32,
    read_pretrained,
    require_projection,
)
from adamerge_core.vision.task_heads import (
    LINEAR,
    ZERO_SHOT,
)
from adamerge_core.vision.training import TrainingSettings

OWN = TrainingSettings(
    steps=100,
    batch_size=32,
    learning_rate=1.3e-4,
    warmup_steps=10,
    weight_decay=0.1,
    gradient_clip=1.0,
)
"""Settings for this project's own models and for classifiers, those of the suite mini."""

CLIP_VIT = TrainingSettings(steps=4000, batch_size=32, learning_rate=1e-5)
"""Settings for CLIP's ViTs: steps, batch and learning rate of FusionBench's published models."""

_SETTINGS = of_dataclass(TrainingSettings)


@dataclass(frozen=True)
class FinetuneRecipe:
    """A fine-tuning of one pretrained model on one folder of images, under a frozen head."""

    architecture: str
    pretrained: str
    """As MergeRecipe has it."""
    images: str
    """A folder <class>/<image>."""
    classes: str | None = None
    """A list of class names, or a name of the catalogue; None: the folders' names."""
    templates: str | None = None
    """A file of prompts."""
    head: str = "auto"
    """zero_shot, linear (a linear probe), or auto: zero_shot where there is a text tower."""
    held_out: float = 0.1
    """The share of each class's images that is not trained on, and measured on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingSettings; what is left out is that of OWN or CLIP_VIT."""
    seed: int = 0

    def faults(self) -> list[str]:
        """List what is wrong before any file is looked at, a line each."""
        faults: list[str] = []
        with collected(faults):
            check_architecture(self.architecture)
        if self.head not in ("auto", ZERO_SHOT, LINEAR):
            faults.append(f"head = {self.head!r}: must be one of auto, {ZERO_SHOT}, {LINEAR}")
        if not 0 < self.held_out < 1:
            faults.append(f"held_out = {self.held_out}: must be above 0 and below 1")
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed = {self.seed}: must be from 0 to 2**32 - 1")
        fitting, unfit = by_type(_SETTINGS, self.settings)
        faults += unfit
        for name, value in fitting.items():
            least_one = name in ("steps", "batch_size")
            if value < (1 if least_one else 0) or (name == "learning_rate" and value == 0):
                rule = "at least 1" if least_one else "above 0" if "rate" in name else "at least 0"
                faults.append(f"{name} = {value}: must be {rule}")
        return faults

    def training(self) -> TrainingSettings:
        """The settings of the training, with the defaults of the architecture."""
        own = self.architecture in ARCHITECTURES or is_classifier(self.architecture)
        default = OWN if own else CLIP_VIT
        return replace(default, **self.settings)


@dataclass(frozen=True)
class FinetuneInputs:
    """A recipe and what it names, read."""

    recipe: FinetuneRecipe
    pretrained: ImageTower
    images: ImageFiles
    labels: np.ndarray
    """[N] int64."""
    classes: ClassList

    @property
    def head(self) -> str:
        """The kind of the head: zero_shot or linear."""
        if self.recipe.head != "auto":
            return self.recipe.head
        return ZERO_SHOT if self.pretrained.text_tower else LINEAR

    def identity(self) -> dict[str, Any]:
        """Describe the work as JSON, so that unfinished work of another one can be told from it."""
        return {
            "recipe": asdict(self.recipe),
            "pretrained": self.pretrained.sha256,
            "images": self.images.identity,
        }

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Divide the images, class by class, by the seed: those to train on, those held out."""
        rng = np.random.default_rng(self.recipe.seed)
        held_out = []
        for label in range(len(self.classes.names)):
            mine = rng.permutation(np.flatnonzero(self.labels == label))
            held_out.append(mine[: max(1, round(self.recipe.held_out * len(mine)))])
        chosen = np.sort(np.concatenate(held_out))
        return np.setdiff1d(np.arange(len(self.labels)), chosen), chosen


def open_finetune_inputs(recipe: FinetuneRecipe) -> FinetuneInputs:
    """Read all that a recipe names. Raises one InputError that lists every fault."""
    faults = recipe.faults()
    if faults:
        raise InputError.listing("finetune", faults)
    pretrained = images = classes = labels = None
    with collected(faults, "pretrained"):
        pretrained = in_float32(read_pretrained(recipe.pretrained, recipe.architecture))
        require_projection(pretrained, recipe.architecture)
        if recipe.head == ZERO_SHOT and not pretrained.text_tower:
            faults.append(
                f"head = {ZERO_SHOT!r}: {recipe.pretrained} has no text tower; give {LINEAR}"
            )
    with collected(faults):
        images = find_images(recipe.images)
    with collected(faults):
        classes = _classes(recipe, images)
    if images and classes:
        with collected(faults):
            labels = _labels(images, classes)
    if faults or pretrained is None or images is None or classes is None or labels is None:
        raise InputError.listing("finetune", faults)
    return FinetuneInputs(recipe, pretrained, images, labels, classes)


def _classes(recipe: FinetuneRecipe, images: ImageFiles | None) -> ClassList | None:
    if recipe.classes is not None:
        return with_templates(read_classes(recipe.classes), recipe.templates)
    if images is None or not images.classes:
        return None
    named = classes_of_folders(images.classes, f"the folders of {images.folder}")
    return with_templates(named, recipe.templates)


def _labels(images: ImageFiles, classes: ClassList) -> np.ndarray:
    """Label the images. Raises InputError listing the classes with too few of them."""
    labels = images.labels(classes)
    if labels is None:
        raise InputError(f"images {images.folder}: no folder in it is a class of {classes.source}")
    counts = np.bincount(labels, minlength=len(classes.names))
    faults = [
        f"class {name!r}: has {count} images; must have at least 2, one to hold out"
        for name, count in zip(classes.names, counts, strict=True)
        if count < 2
    ]
    if len(classes.names) < 2:
        faults.append(f"{len(classes.names)} class: there must be at least 2")
    if faults:
        raise InputError.listing(f"images {images.folder}", faults, shown=20)
    return labels
