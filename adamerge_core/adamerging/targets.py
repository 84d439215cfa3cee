"""Targets of objectives: the experts' predictions, and checks of what a caller gives."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.adamerging.engine import Engine, check_logits, misfits
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.batches import array_fault, take, taken_by
from adamerge_core.checkpoints import all_finite
from adamerge_core.distributed import world
from adamerge_core.errors import InputError
from adamerge_core.parameters import count_faults
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.widening import widened

Arrays = Mapping[str, np.ndarray | Tensor]


@torch.no_grad()
def expert_targets(
    encoder: nn.Module,
    task_vectors: TaskVectors,
    heads: Mapping[str, nn.Module],
    images: Arrays,
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """Predict each task's images with its own fine-tuned model, the expert (arXiv 2412.19098).

    Expert k is theta_pre + tau_k, so `task_vectors` are the plain ones, not preprocessed. images:
    per task [N_k, ...]. Returns per task [N_k, classes] float32 (float64 for a float64 encoder) on
    the CPU; `argmax(dim=1)` of it are hard labels. Beside the task vectors, memory holds two state
    dicts and `batch_size` images. The encoder gets its tensors back at the end. In a
    torch.distributed group every rank calls it with the same arguments and gets all of the result;
    each reads and computes its share of every task's batches, which are those of one process.
    Raises InputError listing tasks without images or head, tensors of the encoder that do not fit
    the pretrained model, and a batch_size below 1.
    """
    _check(encoder, task_vectors, heads, images, batch_size)
    tensors = encoder.state_dict()  # shares its storage with the encoder
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    was_training = encoder.training
    encoder.eval()
    try:
        return {
            name: _predictions(
                encoder, task_vectors.select((name,)), heads[name], images[name], batch_size
            )
            for name in task_vectors.task_names
        }
    finally:
        encoder.load_state_dict(before)
        encoder.train(was_training)


def targets_for(
    objective: str,
    encoder: nn.Module,
    task_vectors: TaskVectors,
    heads: Mapping[str, nn.Module],
    images: Arrays,
    labels: Arrays,
) -> Arrays | None:
    """Make the targets that an objective compares predictions with; None where it takes none.

    task_vectors: the plain ones. labels: per task [N_k] integers, read where it needs them alone.
    """
    needs = OBJECTIVES[objective].needs
    if needs == "experts":
        return expert_targets(encoder, task_vectors, heads, images)
    return labels if needs == "labels" else None


def _check(
    encoder: nn.Module,
    task_vectors: TaskVectors,
    heads: Mapping[str, nn.Module],
    images: Arrays,
    batch_size: int,
) -> None:
    faults = misfits(encoder, task_vectors, heads) + image_faults(task_vectors, images)
    faults += count_faults("batch_size", batch_size)
    if faults:
        raise InputError.listing("expert targets", sorted(faults))


def image_faults(task_vectors: TaskVectors, images: Arrays) -> list[str]:
    """List the tasks without images, a line each."""
    if not isinstance(images, Mapping):
        return [f"images are {type(images).__name__}: give a dict of arrays by task name"]
    faults = []
    for name in task_vectors.task_names:
        if name not in images:
            faults.append(f"task {name} has no images; give unlabeled images of every task")
            continue
        fault = array_fault(images[name])
        if fault:
            faults.append(f"images of task {name}: the value {fault}")
    return faults


def _predictions(
    encoder: nn.Module,
    task_vector: TaskVectors,
    head: nn.Module,
    images: np.ndarray | Tensor,
    batch_size: int,
) -> Tensor:
    tensors = encoder.state_dict()
    for name, pretrained in task_vector.pretrained.items():
        tensors[name].copy_(pretrained)
    for name, stack in task_vector.layers.items():
        tensors[name].add_(stack[0].to(tensors[name].device))
    device = next(encoder.parameters()).device
    group, parts = world(), [torch.empty(0, dtype=torch.float32)]
    starts = range(0, len(images), batch_size)
    for start in starts[group.share(len(starts))]:
        batch = take(images, slice(start, start + batch_size)).to(device)
        with taken_by("the encoder with its head", batch):
            logits = widened(head(encoder(batch)))
        check_logits(logits, len(batch))
        parts.append(logits.softmax(dim=-1).cpu())
    predictions = torch.cat(group.gather(torch.cat(parts)))
    if not all_finite(predictions):
        raise InputError(
            f"expert targets: those of task {task_vector.task_names[0]} are not finite; look for "
            "images and weights of its head that are not"
        )
    return predictions


def target_faults(
    engine: Engine, images: Arrays, targets: Arrays | None, objective: str
) -> list[str]:
    """List what is wrong with the targets of an objective, a line each.

    images: per task, none empty.
    """
    needs = OBJECTIVES[objective].needs
    if needs is None:
        return [] if targets is None else [f"objective {objective} takes no targets; give none"]
    sources = {"experts": "expert_targets(...)", "labels": "the true labels"}
    if not isinstance(targets, Mapping):
        return [f"objective {objective} needs targets; give {sources[needs]} by task name"]
    faults = []
    for name in engine.task_vectors.task_names:
        if name not in targets:
            faults.append(f"task {name} has no targets; give {sources[needs]}")
            continue
        fault = array_fault(targets[name])
        if fault:
            faults.append(f"targets of task {name}: the value {fault}")
            continue
        classes = engine.logits(name, take(images[name], slice(1))).shape[-1]
        given = take(targets[name], slice(None))
        faults += [f"task {name}: {fault}" for fault in _faults(given, len(images[name]), classes)]
    return faults


def _faults(targets: Tensor, count: int, classes: int) -> list[str]:
    if targets.is_floating_point():
        if targets.shape != (count, classes):
            return [
                f"probabilities of shape {list(targets.shape)}: {count} images, {classes} classes "
                f"need [{count}, {classes}]"
            ]
        wide = targets.double()
        if bool((wide >= 0).all()) and bool(((wide.sum(dim=1) - 1).abs() < 1e-3).all()):
            return []
        return ["probabilities must be at least 0 and sum to 1 for every image; give softmax's"]
    if targets.dtype == torch.bool or targets.is_complex():
        return [f"labels are {targets.dtype}: must be integers, the classes' numbers from 0"]
    if targets.shape != (count,):
        return [f"labels of shape {list(targets.shape)}: {count} images need [{count}]"]
    if bool((targets >= 0).all()) and bool((targets < classes).all()):
        return []
    low, high = int(targets.min()), int(targets.max())
    return [f"labels in [{low}, {high}]: the head has {classes} classes, 0 to {classes - 1}"]
