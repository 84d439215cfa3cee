"""Opening what the model stages share: encoder, heads, prepared images, task vectors."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.vision.encoders import create_clip, image_encoder
from adamerge_core.vision.heads import ZeroShotHead
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import TrainingSettings
from tasks.graph.paths import Files
from tasks.shared.task_vectors import set_up
from tasks.suite.schema import Finetune, Suite


def open_encoder(suite: Suite) -> nn.Module:
    """The suite's image encoder on the suite's device; its weights are still random."""
    device = set_up(suite.compute)
    torch.manual_seed(0)
    return image_encoder(create_clip(suite.model.architecture), suite.model.architecture).to(device)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Put a checkpoint into the encoder. Raises InputError listing all tensors that do not fit."""
    state = checkpoints.load(path)
    checkpoints.check_same_architecture(encoder.state_dict(), {str(path): state})
    encoder.load_state_dict(state)


def open_heads(suite: Suite, task_names: Iterable[str]) -> dict[str, nn.Module]:
    """The frozen zero-shot head of each task. Raises InputError if one is missing."""
    path = Files(suite.name).heads
    weights = checkpoints.load(path)
    missing = [f"task {name} has no head" for name in task_names if name not in weights]
    if missing:
        raise InputError.listing(f"{path}; make it again with `dvc repro pretrain`", missing)
    return {name: ZeroShotHead(weights[name]).to(suite.compute.device) for name in task_names}


def open_split(files: Files, task_names: Iterable[str], split: str) -> dict[str, LabeledImages]:
    """One split of each task, memory-mapped."""
    return {
        name: LabeledImages.open(files.images(name, split), files.labels(name, split))
        for name in task_names
    }


def accuracy(
    encoder: nn.Module, heads: Mapping[str, nn.Module], data: Mapping[str, LabeledImages]
) -> dict[str, float]:
    """Top-1 in percent per task and `average`."""
    return with_average(
        {
            name: percent(correct(encoder, heads[name], part.images, part.labels))
            for name, part in data.items()
        }
    )


def finetune_settings(settings: Finetune, steps: int | None = None) -> TrainingSettings:
    """Training settings of the section finetune, with another number of steps if given."""
    values = settings.model_dump()
    return TrainingSettings(**(values | {"steps": steps or settings.steps}))
