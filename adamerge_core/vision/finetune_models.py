"""A fine-tuning carried out: a checkpoint and its head."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.batches import take
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct, percent
from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.classifier_exports import save_classifier
from adamerge_core.vision.finetune_recipes import (
    FinetuneInputs,
    FinetuneRecipe,
    open_finetune_inputs,
)
from adamerge_core.vision.image_files import Progress, decode_into
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.known_models import input_size
from adamerge_core.vision.linear_probes import features
from adamerge_core.vision.pretrained import encoder_of, scaling_of, whole_clip
from adamerge_core.vision.task_heads import (
    ZERO_SHOT,
    TaskHead,
    head_path,
    linear_probe,
    zero_shot_head,
)
from adamerge_core.vision.training import finetune
from adamerge_core.vision.work_folders import put_in_place, taken_fault, work_folder

_FEATURE_BATCH = 64


@dataclass(frozen=True)
class Finetuned:
    """What came of a fine-tuning: top-1 in percent on the images held out."""

    pretrained: float
    """Of the pretrained image tower under the same head."""
    finetuned: float
    held_out: int
    """How many images."""
    checkpoint: Path
    head: Path
    """The file of the head; of a classifier the checkpoint, which has it."""


def finetune_folder(
    recipe: FinetuneRecipe, out: str | Path, device: str = "cpu", progress: Progress | None = None
) -> Finetuned:
    """Fine-tune the image tower under a frozen head; write the checkpoint `out` and the head.

    Of a classifier both are in `out`, in its own names. Else the head is at `out` with the suffix
    .head.safetensors, where merge_models finds it. A linear head is fitted on the pretrained
    features of the images to train on, before the image tower is trained (arXiv 2202.10054).
    Interrupted work is in `<out>.partial`, and the same call goes on from it. Raises InputError
    listing what is wrong, and where something is at `out` already.
    """
    target = Path(out)
    if faults := out_faults(target):
        raise InputError.listing("finetune", faults)
    inputs = open_finetune_inputs(recipe)
    return finetune_inputs(inputs, target, device, progress or (lambda *_: None))


def out_faults(out: Path) -> list[str]:
    """List what keeps a checkpoint and its head from being written to `out`, a line each."""
    taken = [taken_fault(out), taken_fault(head_path(out), "the head's file")]
    faults = [fault for fault in taken if fault]
    if out.suffix != ".safetensors":
        faults.append(f"out = {str(out)!r}: must end in .safetensors, which it will be")
    return faults


def finetune_inputs(
    inputs: FinetuneInputs, out: Path, device: str, progress: Progress
) -> Finetuned:
    """Do what finetune_folder does, with a recipe's files read already."""
    recipe, settings = inputs.recipe, inputs.recipe.training()
    with work_folder(out, inputs.identity()) as folder:
        size = input_size(recipe.architecture)
        train, held_out = (
            _decoded(folder / f"{part}.npy", inputs, rows, size, progress)
            for part, rows in zip(("train", "held_out"), inputs.rows(), strict=True)
        )
        pixels = scaling_of(recipe.architecture, recipe.pretrained)
        tensors = inputs.pretrained.tensors
        encoder = encoder_of(recipe.architecture, tensors, recipe.pretrained, pixels).to(device)
        head = _head(inputs, encoder, train, progress)
        module = head.module().to(device)
        before = percent(correct(encoder, module, held_out.images, held_out.labels))
        state = folder / "training.safetensors"
        heads, data = {"images": module}, {"images": train}
        for step in finetune(encoder, heads, data, settings, recipe.seed, state):
            progress(step.step, settings.steps, f"steps, loss {step.loss:.3f}")
        after = percent(correct(encoder, module, held_out.images, held_out.labels))
        stated = {
            "architecture": recipe.architecture,
            "pretrained_sha256": inputs.pretrained.sha256,
        }
        if is_classifier(recipe.architecture):
            path, tensors = folder / "checkpoint", encoder.state_dict()
            save_classifier(path, recipe.architecture, tensors, head, stated)
        else:
            checkpoints.save(folder / "checkpoint", encoder.state_dict(), stated)
            head.save(folder / "head")
            put_in_place(folder / "head", head_path(out))
        put_in_place(folder / "checkpoint", out)
    beside = out if is_classifier(recipe.architecture) else head_path(out)
    return Finetuned(before, after, len(held_out.labels), out, beside)


def _head(
    inputs: FinetuneInputs,
    encoder: nn.Module,
    train: LabeledImages,
    progress: Progress,
) -> TaskHead:
    architecture = inputs.recipe.architecture
    if inputs.head == ZERO_SHOT:
        return zero_shot_head(
            whole_clip(architecture, inputs.pretrained), architecture, inputs.classes
        )
    device = next(encoder.parameters()).device

    def batches() -> Iterator[Tensor]:
        count = len(train.labels)
        for start in range(0, count, _FEATURE_BATCH):
            stop = min(start + _FEATURE_BATCH, count)
            yield take(train.images, slice(start, stop)).to(device)
            progress(stop, count, "images seen by the linear probe")

    found = features(encoder, batches())
    return linear_probe(found, torch.from_numpy(train.labels), inputs.classes)


def _decoded(
    path: Path, inputs: FinetuneInputs, rows: np.ndarray, size: int, progress: Progress
) -> LabeledImages:
    images = decode_into(path, inputs.images.choose(rows.tolist()), size, progress)
    return LabeledImages(images, inputs.labels[rows])
