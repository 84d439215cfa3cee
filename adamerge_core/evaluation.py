"""Top-1 accuracy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.batches import take
from adamerge_core.distributed import world
from adamerge_core.errors import InputError


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
    process. Raises InputError listing what is wrong with images, labels and batch_size.
    """
    known = _as_array(labels)
    _check(len(images), known, batch_size)
    encoder.eval()
    device = next(encoder.parameters()).device
    group, hits = world(), []
    starts = range(0, len(images), batch_size)
    for start in starts[group.share(len(starts))]:
        batch = take(images, slice(start, start + batch_size)).to(device)
        guesses = head(encoder(batch)).argmax(dim=-1)
        hits.append(guesses.cpu().numpy() == known[start : start + batch_size])
    own = np.concatenate(hits) if hits else np.zeros(0, dtype=bool)
    return np.concatenate(group.gather(own))


def _as_array(labels: np.ndarray | Tensor) -> np.ndarray:
    """Turn labels into a numpy array, which has no bfloat16; an array on disk stays there."""
    if not isinstance(labels, Tensor):
        return np.asarray(labels)
    return (labels.float() if labels.is_floating_point() else labels).cpu().numpy()


def _check(images: int, labels: np.ndarray, batch_size: int) -> None:
    faults = []
    if images == 0:
        faults.append("0 images; give at least one")
    if labels.shape != (images,):
        faults.append(f"labels of shape {list(labels.shape)}: {images} images need [{images}]")
    if not np.issubdtype(labels.dtype, np.integer):
        faults.append(f"labels are {labels.dtype}: must be integers, the classes' numbers from 0")
    if not batch_size >= 1:
        faults.append(f"batch_size = {batch_size}: must be at least 1")
    if faults:
        raise InputError.listing("evaluation", faults)


def percent(hits: np.ndarray) -> float:
    """Top-1 accuracy in percent, [0, 100]; from hits [N] bool, at least one."""
    return 100 * float(hits.mean())


def with_average(per_task: Mapping[str, float]) -> dict[str, float]:
    """Add the plain mean of the tasks' accuracies under `average`."""
    return {**per_task, "average": sum(per_task.values()) / len(per_task)}
