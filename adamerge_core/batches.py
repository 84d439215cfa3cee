"""Batches: the images a step draws, read out of arrays and copied to a device."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

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
