"""Precision that sums and logarithms need, whatever dtype the models have."""

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """In float32, or in its own dtype where that is wider; of any shape, on its device."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
