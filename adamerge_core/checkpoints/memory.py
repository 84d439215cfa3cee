"""Memory of tensors: taken, or refused in words, and seen as bytes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adamerge_core.errors import InputError


def empty(shape: int | Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make a tensor on the CPU without values. Raises InputError where memory lacks for it."""
    try:
        return torch.empty(shape, dtype=dtype)
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"a tensor of shape {shape} and {dtype} does not fit into this machine's free memory; "
            "free some, or use a machine with more"
        ) from error


def as_bytes(flat: Tensor) -> memoryview:
    """View the memory of a contiguous tensor [n] on the CPU, of any dtype."""
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
