"""Adaptation and evaluation split over the processes of a torch.distributed group.

A process without a group is a world of one: nothing is sent, and results are the same bits.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adamerge_core.errors import InputError

Part = TypeVar("Part")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets."""


class RankError(RuntimeError):
    """Another rank has ended, or gave no answer in time."""


@dataclass(frozen=True)
class World:
    """The ranks that share the work, seen from one of them.

    Its methods but `share` are collective: every rank calls the same ones in the same order. They
    raise RankError when another rank does not.
    """

    rank: int = 0
    """In [0, size)."""
    size: int = 1
    device: torch.device | None = None
    """Where the group's backend takes tensors; None sends nothing."""

    def share(self, count: int) -> slice:
        """Find this rank's slice of `count` items.

        The slices are contiguous, in rank order, and differ by one item at most; the last ranks'
        are empty when there are fewer items than ranks.
        """
        size, longer = divmod(count, self.size)
        first = self.rank * size + min(self.rank, longer)
        return slice(first, first + size + (self.rank < longer))

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the ranks, entry by entry: the same bits on each rank.

        The result has the device, shape and dtype of `values`, which are of one shape and dtype on
        all ranks. A group of the same size and backend gives the same bits again.
        """
        if self.device is None:
            return values
        total = values.to(self.device, copy=True)
        with _answered(self.rank):
            dist.all_reduce(total)
            return total.to(values.device)

    def gather(self, part: Part) -> list[Part]:
        """Collect one object a rank, in rank order; it must pickle, with tensors on the CPU."""
        if self.device is None:
            return [part]
        parts = [part] * self.size
        with _answered(self.rank):
            dist.all_gather_object(parts, part)
        return parts

    def check_equal(self, subject: str, values: dict[str, object]) -> None:
        """Raise InputError on every rank, listing by name the values that differ between ranks."""
        given = self.gather(values)
        faults = [
            f"{name} is {given[0].get(name)} on rank 0, {other.get(name)} on rank {rank}; "
            "give every rank the same"
            for rank, other in enumerate(given)
            for name in sorted(given[0].keys() | other.keys())
            if given[0].get(name) != other.get(name)
        ]
        if faults:
            raise InputError.listing(subject, faults)


def world() -> World:
    """The ranks of the group that torch.distributed is initialised with, or a world of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    on_cuda = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device)


@contextmanager
def start(device: str = "auto", timeout: float = 600.0) -> Iterator[torch.device]:
    """Join torchrun's group of ranks while the block runs; gives this rank's device.

    Without torchrun there is no group, and the same script runs as one process. device: cuda (rank
    i of a machine takes its i-th device; the backend is nccl), cpu (gloo), or auto: cuda where
    there is one. timeout: seconds that a rank waits for the others before it raises RankError.
    Raises InputError for a value that is not one of these, more ranks than CUDA devices, an
    incomplete environment, or when torch.distributed is initialised already.
    """
    joins = any(name in os.environ for name in _ENVIRONMENT[:2])
    chosen = _chosen_device(device, timeout, joins)
    if not joins:
        yield chosen
        return
    on_cuda = chosen.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=timedelta(seconds=timeout))
    succeeded = False
    try:
        yield chosen
        succeeded = True
    finally:
        # after a failure gloo's connections close, which others notice; nccl would wait for them
        if succeeded or not on_cuda:
            dist.destroy_process_group()


def _chosen_device(device: str, timeout: float, joins: bool) -> torch.device:
    """Choose this rank's device. Raises InputError listing what keeps it from the group."""
    faults = []
    if device not in ("auto", "cpu", "cuda"):
        faults.append(f"device = {device!r}: must be one of auto, cpu, cuda")
    if not 0 < timeout < timedelta.max.total_seconds():
        faults.append(f"timeout = {timeout}: must be above 0 and finite, in seconds")
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if joins and missing:
        faults.append(f"the environment has no {', '.join(missing)}; start the script by torchrun")
    if joins and dist.is_initialized():
        faults.append("torch.distributed is initialised already; end its group, or use it as it is")
    number = int(os.environ.get("LOCAL_RANK", 0)) if joins else 0
    devices = torch.cuda.device_count()
    on_cuda = device == "cuda" or (device == "auto" and devices > 0)
    if on_cuda and number >= devices:
        faults.append(
            f"device = {device!r}: this is rank {number} of the machine, which has {devices} CUDA "
            "devices; start one rank a device, or give 'cpu'"
        )
    if faults:
        raise InputError.listing("torch.distributed", faults)
    return torch.device("cuda", number) if on_cuda else torch.device("cpu")


@contextmanager
def _answered(rank: int) -> Iterator[None]:
    """Turn a backend's error into a RankError that says what it means."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            f"rank {rank}: another rank has ended, or gave no answer within the group's timeout; "
            "its own message says why. Every rank must take the same steps and evaluations"
        ) from error
