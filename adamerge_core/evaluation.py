"""Top-1 accuracy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.batches import array_fault, take, taken_by
from adamerge_core.checkpoints import all_finite, tensor_fault
from adamerge_core.distributed import world
from adamerge_core.errors import InputError
from adamerge_core.parameters import count_faults


@torch.inference_mode()
def correct(
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    batch_size: int = 64,
) -> np.ndarray:
    """Mark the images whose likeliest class is their label: [N] bool.

    images: [N, ...] as the encoder takes them, at least one; labels: [N] integers, image by image,
    on any device. In a torch.distributed group every rank calls it with the same images and gets
    all of the result; each reads and computes its share of the batches, which are those of one
    process. Raises InputError listing what is wrong with images, labels and batch_size, when the
    images do not fit the encoder, and when logits are not finite.
    """
    known = _as_array(labels)
    _check(images, known, batch_size)
    encoder.eval()
    device = next(encoder.parameters()).device
    group, hits = world(), []
    starts = range(0, len(images), batch_size)
    for start in starts[group.share(len(starts))]:
        batch = take(images, slice(start, start + batch_size)).to(device)
        with taken_by("the encoder with its head", batch):
            guesses = _guesses(head(encoder(batch)), known[start : start + batch_size])
        hits.append(guesses == known[start : start + batch_size])
    own = np.concatenate(hits) if hits else np.zeros(0, dtype=bool)
    return np.concatenate(group.gather(own))


def _guesses(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """The likeliest classes [N]. Raises InputError unless the logits [N, classes] can be judged."""
    if logits.shape[:-1] != labels.shape or not logits.shape[-1]:
        raise InputError(
            f"logits of shape {list(logits.shape)} for {len(labels)} images: need "
            f"[{len(labels)}, classes]; give a head that classifies each image's features"
        )
    if labels.max() >= logits.shape[-1]:
        raise InputError(
            f"a label is {labels.max()}, the head has the classes 0 to {logits.shape[-1] - 1}; "
            "give the labels and the head of one task"
        )
    if not all_finite(logits):
        raise InputError(
            "the logits are not finite, so no class is the likeliest; look for weights of encoder "
            "and head that are not"
        )
    return logits.argmax(dim=-1).cpu().numpy()


def _as_array(labels: np.ndarray | Tensor) -> np.ndarray:
    """Turn labels into a numpy array, which has no bfloat16; an array on disk stays there."""
    if not isinstance(labels, Tensor):
        return np.asarray(labels)
    if tensor_fault(labels):
        raise InputError(f"labels: the value {tensor_fault(labels)}")
    return (labels.float() if labels.is_floating_point() else labels).cpu().numpy()


def _check(images: np.ndarray | Tensor, labels: np.ndarray, batch_size: int) -> None:
    fault = array_fault(images)
    faults = [f"images: the value {fault}"] if fault else []
    if not fault and labels.shape != (len(images),):
        count = len(images)
        faults.append(f"labels of shape {list(labels.shape)}: {count} images need [{count}]")
    if not np.issubdtype(labels.dtype, np.integer):
        faults.append(f"labels are {labels.dtype}: must be integers, the classes' numbers from 0")
    elif labels.size and labels.min() < 0:
        faults.append(f"a label is {labels.min()}: must be the classes' numbers from 0")
    faults += count_faults("batch_size", batch_size)
    if faults:
        raise InputError.listing("evaluation", faults)


def percent(hits: np.ndarray) -> float:
    """Top-1 accuracy in percent, [0, 100]; from hits [N] bool, at least one."""
    return 100 * float(hits.mean())


def with_average(per_task: Mapping[str, float]) -> dict[str, float]:
    """Add the plain mean of the tasks' accuracies under `average`."""
    return {**per_task, "average": sum(per_task.values()) / len(per_task)}
