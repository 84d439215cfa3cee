"""Dtypes wide enough for sums and logarithms, whatever dtype the models have."""

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """The wider of float32 and `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32, or leave it where its dtype is wider."""
    return tensor.to(wide(tensor.dtype))
