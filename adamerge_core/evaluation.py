"""Top-1 accuracy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.batches import take
from adamerge_core.distributed import world


@torch.inference_mode()
def correct(
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    batch_size: int = 64,
) -> np.ndarray:
    """Which images the model's first guess gets right: [N] bool.

    images: [N, ...] as the encoder takes them; labels: [N] integers. In a torch.distributed group
    every rank calls it with the same images and gets all of the result; each reads and computes
    its share of the batches, which are those of one process.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    group, hits = world(), []
    starts = range(0, len(images), batch_size)
    for start in starts[group.share(len(starts))]:
        batch = take(images, slice(start, start + batch_size)).to(device)
        guesses = head(encoder(batch)).argmax(dim=-1)
        hits.append(guesses.cpu().numpy() == np.asarray(labels[start : start + batch_size]))
    own = np.concatenate(hits) if hits else np.zeros(0, dtype=bool)
    return np.concatenate(group.gather(own))


def percent(hits: np.ndarray) -> float:
    """Top-1 accuracy in percent, [0, 100]."""
    return 100 * float(hits.mean())


def with_average(per_task: Mapping[str, float]) -> dict[str, float]:
    """The accuracies per task and their plain mean under `average`."""
    return {**per_task, "average": sum(per_task.values()) / len(per_task)}
