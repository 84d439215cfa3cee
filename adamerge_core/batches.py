"""Batches: the images a step draws, read out of arrays and copied to a device."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from adamerge_core.checkpoints import tensor_fault
from adamerge_core.errors import InputError

Batch = dict[str, Tensor]
Item = TypeVar("Item")


def batch_indices(count: int, batch: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
    """Draw the indices [batch] int64 of one step, counted from 0, out of `count` items.

    Every epoch is a new permutation from `seed`; a batch may span two epochs. It depends on nothing
    but its arguments, so a resumed run draws what an uninterrupted one would.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    orders = {e: np.random.default_rng([*seed, int(e)]).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])


def rows_between(counts: Mapping[str, int], start: int, stop: int) -> dict[str, slice]:
    """Find the rows of each name that lie between two positions of all rows joined end to end.

    counts: by name its number of rows, joined in this order. A name without rows there gets an
    empty slice.
    """
    rows, first = {}, 0
    for name, count in counts.items():
        rows[name] = slice(min(max(start - first, 0), count), min(max(stop - first, 0), count))
        first += count
    return rows


def array_fault(images: object) -> str | None:
    """Say what keeps an object from being images [N, ...], N at least 1; None if it is."""
    if isinstance(images, Tensor):
        fault = tensor_fault(images)
        if fault:
            return fault
        kind = "c" if images.is_complex() else "f"
    elif isinstance(images, np.ndarray):
        kind = images.dtype.kind
    else:
        return f"is {type(images).__name__}; give a numpy array or a tensor [N, ...]"
    if kind not in "buif":
        return f"is {images.dtype}; give real numbers"
    if images.ndim == 0:
        return "has no dimension; give [N, ...]"
    return None if len(images) else "holds 0 images; give at least one"


@contextmanager
def taken_by(who: str, batch: Tensor) -> Iterator[None]:
    """Run a forward pass in the block; what torch says of the batch becomes an InputError.

    who: takes the batch, in the message. A lack of memory stays what it is.
    """
    try:
        yield
    except (torch.OutOfMemoryError, InputError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"{who} does not take a batch of shape {list(batch.shape)} and {batch.dtype}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}; give what it "
            "was made for"
        ) from error


def take(images: np.ndarray | Tensor, rows: np.ndarray | slice) -> Tensor:
    """Copy some images [rows, ...] into a tensor; `images` may be a memory-mapped array."""
    if isinstance(images, Tensor):
        return images[torch.as_tensor(rows) if isinstance(rows, np.ndarray) else rows]
    return torch.from_numpy(np.array(images[rows]))


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches to a CUDA device, each one while the batch before it is in use.

    Tensors keep their dtype: uint8 images cross as uint8. For another device the batches stay where
    they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    move = partial(_copy, device=device, stream=torch.cuda.Stream(device))
    for batch in one_ahead(batches, move):
        for tensor in batch.values():
            # made on the side stream: its memory must outlive this stream's use of it
            tensor.record_stream(torch.cuda.current_stream(device))
        yield batch


def _copy(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> Batch:
    """Copy through pinned memory on a stream of its own; done when it returns."""
    with torch.cuda.stream(stream):
        pinned = {n: t.pin_memory() if t.device.type == "cpu" else t for n, t in batch.items()}
        moved = {name: t.to(device, non_blocking=True) for name, t in pinned.items()}
        stream.synchronize()
    return moved


def one_ahead(items: Iterator[Item], change: Callable[[Item], Item]) -> Iterator[Item]:
    """Change items in a thread, one ahead of the caller, and yield them in order."""
    end = object()

    def following() -> object:
        item = next(items, end)
        return item if item is end else change(item)  # type: ignore[arg-type]

    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(following)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(following)
            yield item  # type: ignore[misc]
