"""Top-1 accuracy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.batches import take


@torch.inference_mode()
def correct(
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    batch_size: int = 64,
) -> np.ndarray:
    """Which images the model's first guess gets right: [N] bool.

    images: [N, ...] as the encoder takes them; labels: [N] integers.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    hits = []
    for start in range(0, len(images), batch_size):
        batch = take(images, slice(start, start + batch_size)).to(device)
        guesses = head(encoder(batch)).argmax(dim=-1)
        hits.append(guesses.cpu().numpy() == np.asarray(labels[start : start + batch_size]))
    return np.concatenate(hits) if hits else np.zeros(0, dtype=bool)


def percent(hits: np.ndarray) -> float:
    """Top-1 accuracy in percent, [0, 100]."""
    return 100 * float(hits.mean())


def with_average(per_task: Mapping[str, float]) -> dict[str, float]:
    """The accuracies per task and their plain mean under `average`."""
    return {**per_task, "average": sum(per_task.values()) / len(per_task)}
