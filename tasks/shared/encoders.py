"""Opening what the stages that run the image encoder share: encoder, heads, prepared images."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.classifier_architectures import classifier_encoder, classifier_input
from adamerge_core.vision.classifiers import head_of
from adamerge_core.vision.images import LabeledImages
from tasks.graph import paths


def open_encoder(model: Mapping[str, Any], device: torch.device) -> nn.Module:
    """Make the image encoder of the section `model` on `device`; its weights are still random."""
    architecture = model["architecture"]
    if is_classifier(architecture):
        return classifier_encoder(architecture, classifier_input(architecture).pixels).to(device)
    # takes seconds to import
    from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling

    torch.manual_seed(0)
    pixels = pixel_scaling(architecture, model["weights"].get("tag"))
    return image_encoder(create_clip(architecture), pixels).to(device)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Put a checkpoint into the encoder. Raises InputError listing all tensors that do not fit."""
    state = checkpoints.load(path)
    checkpoints.check_same_architecture(encoder.state_dict(), {str(path): state})
    encoder.load_state_dict(state)


def open_heads(model: str, datasets: Iterable[str], device: torch.device) -> dict[str, nn.Module]:
    """Read the frozen head of each dataset: zero-shot, or linear where it has a bias.

    Raises InputError listing missing ones, and those that hold no finite weight [classes, D].
    """
    files = {name: paths.head(model, name) for name in datasets}
    missing = [f"{path}: no such file" for path in files.values() if not path.is_file()]
    if missing:
        raise InputError.listing("heads; make them with `dvc repro`", missing)
    states = {name: checkpoints.load(path) for name, path in files.items()}
    faults = [
        f"{files[name]}: {fault}" for name, state in states.items() for fault in _head_faults(state)
    ]
    if faults:
        raise InputError.listing("heads; make them again with `dvc repro`", faults)
    return {name: head_of(state).to(device) for name, state in states.items()}


def _head_faults(state: checkpoints.StateDict) -> list[str]:
    """List what keeps a state dict from being a head."""
    if state.keys() not in ({"weight"}, {"weight", "bias"}):
        held = ", ".join(state) or "none"
        return [f"must hold one tensor, weight, or a bias beside it, and holds {held}"]
    weight = state["weight"]
    if not weight.is_floating_point() or weight.dim() != 2 or 0 in weight.shape:
        shape = list(weight.shape)
        return [f"weight is {weight.dtype} of shape {shape}: must be floating, [classes, D]"]
    return checkpoints.non_finite("the head", state)


def read_classes(dataset: str) -> tuple[list[str], list[str]]:
    """Read the class names of a dataset, in the order of the labels, and its prompts."""
    text = json.loads(paths.classes(dataset).read_text(encoding="utf-8"))
    return text["classes"], text["templates"]


def open_split(datasets: Iterable[str], size: str | int, split: str) -> dict[str, LabeledImages]:
    """Open one split of each dataset, memory-mapped."""
    return {
        name: LabeledImages.open(paths.images(name, size, split), paths.labels(name, size, split))
        for name in datasets
    }
