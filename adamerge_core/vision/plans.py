"""What a merge or a fine-tuning takes, before it is done: memory, disk, and time by a trial."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.export import is_clip_vit
from adamerge_core.vision.finetune_recipes import FinetuneInputs
from adamerge_core.vision.folder_accuracy import EvaluationInputs
from adamerge_core.vision.image_files import ImageFiles, decoded
from adamerge_core.vision.known_models import input_size
from adamerge_core.vision.merge_recipes import MergeInputs
from adamerge_core.vision.pretrained import encoder_of, scaling_of
from adamerge_core.vision.task_heads import OWN

_TRIED = 8
"""Images of a trial."""

_PROGRAM = 7 * 10**8
"""Bytes of the process before it has read a model."""


@dataclass(frozen=True)
class Plan:
    """What work takes, in bytes and seconds."""

    memory: int
    """Of the program and of tensors of models; activations come on top."""
    written: int
    """Of what is there at the end."""
    working: int
    """Of the folder of unfinished work, beside that."""
    seconds: float | None
    """By a trial on this machine; None where nothing runs the model."""


@dataclass(frozen=True)
class _Speed:
    """Seconds an image takes."""

    decode: float
    forward: float
    backward: float
    """Forward and backward together."""


def plan_merge(inputs: MergeInputs, device: str) -> Plan:
    """Estimate a merge. Seconds are those of images: what a rule takes is not among them."""
    tasks, recipe = inputs.tasks.values(), inputs.recipe
    model = tensor_bytes(inputs.pretrained.tensors)
    text = tensor_bytes(inputs.pretrained.text_tower)
    size = input_size(recipe.architecture)
    images = [task.images for task in tasks if task.images]
    count = sum(len(each.files) for each in images)
    measured = 3 * sum(len(task.labels) for task in tasks if task.labels is not None)
    choose = inputs.method.choose
    tried = [each.settings for each in (choose.methods if choose else (inputs.method,))]
    adapted = len(inputs.tasks) * sum(
        each.steps * each.images_per_task * each.batches_per_step for each in tried if each
    )
    measured += count * len(choose.values) if choose else 0
    written = model + (model + text if text else 0)
    written += model if is_clip_vit(recipe.architecture) else 0
    if is_classifier(recipe.architecture):  # a whole classifier a head
        heads = sum(task.head is not None for task in tasks)
        written += model * (heads if recipe.head == OWN else min(heads, 1))
    seconds = None
    if images:
        speed = _speed(
            recipe.architecture, recipe.pretrained, inputs.pretrained.tensors, images[0], device
        )
        seconds = count * speed.decode + measured * speed.forward + adapted * speed.backward
    # fine-tuned and task vectors; pretrained, merged, a copy to write; with images the encoder
    models = 2 * len(inputs.tasks) + (4 if images else 3)
    return Plan(_PROGRAM + models * model + 2 * text, written, count * size * size * 3, seconds)


def plan_finetuning(inputs: FinetuneInputs, device: str) -> Plan:
    """Estimate a fine-tuning."""
    recipe, settings = inputs.recipe, inputs.recipe.training()
    model = tensor_bytes(inputs.pretrained.tensors)
    count, size = len(inputs.images.files), input_size(recipe.architecture)
    speed = _speed(
        recipe.architecture, recipe.pretrained, inputs.pretrained.tensors, inputs.images, device
    )
    held_out = len(inputs.rows()[1])
    seen = count - held_out if inputs.head == "linear" else 0
    seconds = count * speed.decode + (2 * held_out + seen) * speed.forward
    seconds += settings.steps * settings.batch_size * speed.backward
    # pretrained, encoder, gradient, and two moments of AdamW; these three are the kept state too
    held = _PROGRAM + 5 * model + tensor_bytes(inputs.pretrained.text_tower)
    return Plan(held, model, count * size * size * 3 + 3 * model, seconds)


def plan_evaluation(inputs: EvaluationInputs, device: str) -> Plan:
    """Estimate a measurement of accuracy."""
    tensors, folders = inputs.tower.tensors, list(inputs.images.values())
    speed = _speed(inputs.architecture, inputs.pretrained, tensors, folders[0], device)
    count = sum(len(images.files) for images in folders)
    return Plan(_PROGRAM + 2 * tensor_bytes(tensors), 0, 0, count * (speed.decode + speed.forward))


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Count the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _speed(
    architecture: str,
    pretrained: str | None,
    tensors: Mapping[str, Tensor],
    images: ImageFiles,
    device: str,
) -> _Speed:
    """Measure how long an image takes, on the first ones; a first pass is not counted."""
    few = images.choose(range(min(_TRIED, len(images.files))))
    began = time.perf_counter()
    size = input_size(architecture)
    ((_, pixels),) = decoded(few, size, len(few.files), lambda *_: None)
    decode = (time.perf_counter() - began) / len(pixels)
    scaling = scaling_of(architecture, pretrained)
    encoder = encoder_of(architecture, tensors, "the model", scaling)
    encoder.to(device).requires_grad_(True)
    batch = torch.from_numpy(pixels).to(device)

    def timed(backward: bool) -> float:
        began = time.perf_counter()
        with torch.set_grad_enabled(backward):
            features = encoder(batch).sum()
            if backward:
                features.backward()
            float(features.detach())  # a GPU has to be waited for
        return (time.perf_counter() - began) / len(batch)

    timed(True)
    return _Speed(decode, timed(False), timed(True))
