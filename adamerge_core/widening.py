"""Precision that sums and logarithms need, whatever dtype the models have."""

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """In float32, or in its own dtype where that is wider; of any shape, on its device."""
    return tensor.to(wide(tensor.dtype))
