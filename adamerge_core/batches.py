"""Which images a step sees, and getting them out of arrays."""

import numpy as np
import torch
from torch import Tensor


def batch_indices(count: int, batch: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
    """Indices [batch] int64 that step `step` (from 0) draws of `count` items.

    Every epoch is a new permutation from `seed`; a batch may span two epochs. It depends on nothing
    but its arguments, so a resumed run draws what an uninterrupted one would.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    orders = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])


def take(images: np.ndarray | Tensor, rows: np.ndarray | slice) -> Tensor:
    """Some images [rows, ...] as a tensor of its own; `images` may be a memory-mapped array."""
    if isinstance(images, Tensor):
        return images[torch.as_tensor(rows) if isinstance(rows, np.ndarray) else rows]
    return torch.from_numpy(np.array(images[rows]))
