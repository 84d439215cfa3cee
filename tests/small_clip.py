"""A tiny CLIP of two layers, checkpoints fine-tuned from it, and folders of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adamerge_core import TaskVectors, checkpoints
from adamerge_core.vision import architectures, image_towers
from adamerge_core.vision.clip import create_clip
from adamerge_core.vision.merge_recipes import MergeRecipe

ARCHITECTURE = "small_vit"

CONFIGURATION = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 1, "layers": 1},
}

CLASSES = {"colours": ("blue", "green", "red"), "sides": ("left", "right")}
"""By task the names of its classes."""

_COLOURS = {"blue": (20, 20, 220), "green": (20, 220, 20), "red": (220, 20, 20)}


@contextmanager
def known_architecture() -> Iterator[None]:
    """Make the tiny CLIP one of the architectures that there are."""
    with pytest.MonkeyPatch.context() as patch:
        scaling = ((120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
        patch.setitem(architectures.ARCHITECTURES, ARCHITECTURE, CONFIGURATION)
        patch.setitem(architectures.PIXEL_SCALING, ARCHITECTURE, scaling)
        for cached in (architectures.known_architectures, image_towers._layout):
            cached.cache_clear()
        yield
    for cached in (architectures.known_architectures, image_towers._layout):
        cached.cache_clear()


@contextmanager
def written_material(folder: Path) -> Iterator[Path]:
    """Write models and images of the tiny CLIP, which is known meanwhile."""
    with known_architecture():
        write_models(folder)
        write_images(folder / "images")
        yield folder


def write_models(folder: Path) -> None:
    """Write clip.safetensors, a whole CLIP, and an image tower a task that differs from its own."""
    torch.manual_seed(0)
    clip = create_clip(ARCHITECTURE)
    state = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    checkpoints.save(folder / "clip.safetensors", state)
    for name in CLASSES:
        checkpoints.save(folder / f"{name}.safetensors", moved(clip.visual.state_dict()))


def moved(state: dict[str, Tensor], distance: float = 0.02) -> dict[str, Tensor]:
    """A state dict with noise on every tensor."""
    return {name: tensor + distance * torch.randn_like(tensor) for name, tensor in state.items()}


def write_images(folder: Path, count: int = 4) -> None:
    """Write <folder>/<task>/<class>/<number>.png, so many a class."""
    rng = np.random.default_rng(0)
    for task, names in CLASSES.items():
        for name in names:
            place = folder / task / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (40, 36, 3))
                if task == "colours":
                    pixels[:] = pixels + _COLOURS[name]
                else:
                    half = slice(0, 18) if name == "left" else slice(18, 36)
                    pixels[:, half] += 180
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(place / f"{number}.png")


def by_task(folder: Path | str, suffix: str = "") -> dict[str, str]:
    """By task a path in a folder."""
    return {name: f"{folder}/{name}{suffix}" for name in CLASSES}


ADAPTATION = {"steps": 3, "images_per_task": 2, "batches_per_step": 1, "learning_rate": 0.01}
"""Settings of a short adaptation."""


def recipe_of(models: Path) -> MergeRecipe:
    """The recipe of a layer-wise merge of what written_material() wrote."""
    return MergeRecipe(
        ARCHITECTURE,
        str(models / "clip.safetensors"),
        by_task(models, ".safetensors"),
        "layer_wise",
        ADAPTATION,
        by_task(models / "images"),
    )


def towers(recipe: MergeRecipe) -> TaskVectors:
    """The task vectors of a recipe's files, read by hand."""
    whole = checkpoints.load(recipe.pretrained)
    pretrained = {n.removeprefix("visual."): t for n, t in whole.items() if n.startswith("visual.")}
    finetuned = {name: checkpoints.load(path) for name, path in recipe.finetuned.items()}
    return TaskVectors.from_checkpoints(pretrained, finetuned)
