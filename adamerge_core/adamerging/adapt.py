"""Test-time adaptation of the merging coefficients on unlabeled images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging.engine import Engine
from adamerge_core.batches import batch_indices, take
from adamerge_core.errors import InputError

GRANULARITIES = ("task_wise", "layer_wise")


@dataclass(frozen=True)
class AdaptationSettings:
    """How coefficients are learned; the defaults are those of the paper and its published code."""

    granularity: str = "layer_wise"
    """task_wise learns [K] coefficients, layer_wise [L, K]."""
    steps: int = 500
    images_per_task: int = 32
    """Per step; the published code draws 16 twice."""
    learning_rate: float = 1e-3
    """Of Adam with betas 0.9 and 0.999, no weight decay."""
    start: float = 0.3
    """Every coefficient before the first step."""

    def faults(self) -> list[str]:
        """What is wrong with these settings, a line each."""
        checks = {
            f"granularity = {self.granularity!r}: must be one of {', '.join(GRANULARITIES)}": (
                self.granularity in GRANULARITIES
            ),
            f"steps = {self.steps}: must be at least 1": self.steps >= 1,
            f"images_per_task = {self.images_per_task}: must be at least 1": (
                self.images_per_task >= 1
            ),
            f"learning_rate = {self.learning_rate}: must be above 0": self.learning_rate > 0,
            f"start = {self.start}: must be in [0, 1]": 0 <= self.start <= 1,
        }
        return [message for message, holds in checks.items() if not holds]


@dataclass(frozen=True)
class AdaptationStep:
    """What one step did."""

    step: int
    """Counts from 1."""
    entropy: dict[str, float]
    """Per task the mean entropy in nats of the step's images, before its update."""
    coefficients: Tensor
    """[K] or [L, K] float64 in [0, 1], after its update."""


def adapt(
    engine: Engine,
    images: Mapping[str, np.ndarray | Tensor],
    settings: AdaptationSettings,
    seed: int,
    resume_from: Path | None = None,
    save_every: int = 10,
) -> Iterator[AdaptationStep]:
    """Minimise the summed entropy over the coefficients (AdaMerging, eq. 5); yields every step.

    images: per task [N_k, ...], indexable by an array of integers; drawn without replacement, epoch
    by epoch, from `seed`. The coefficients that the forward pass uses are clamped to [0, 1], and
    those outside get no gradient, as published.
    resume_from: a file that keeps the state, written every `save_every` steps once the caller has
    taken the step; when it exists, the run goes on from it and ends at the same coefficients as one
    never interrupted. The steps before it are not yielded again; the last one always is.
    Raises InputError when settings or images are not usable.
    """
    _check(engine, images, settings)
    optimizer = _Optimizer(_start(engine, settings), settings.learning_rate)
    done = optimizer.load(resume_from) if resume_from and resume_from.exists() else 0
    for step in range(done + 1, settings.steps + 1):
        batch = {
            name: take(images[name], _draw(len(images[name]), settings, step, (seed, index)))
            for index, name in enumerate(engine.task_vectors.task_names)
        }
        entropy, gradient = engine.loss_and_gradient(optimizer.clamped(), batch)
        optimizer.step(gradient)
        yield AdaptationStep(step, entropy, optimizer.clamped())
        if resume_from and step % save_every == 0 and step < settings.steps:
            optimizer.save(resume_from, step)


class _Optimizer:
    """Adam over coefficients that the forward pass sees clamped to [0, 1]."""

    def __init__(self, start: Tensor, learning_rate: float) -> None:
        self.coefficients = start.requires_grad_()
        self.adam = torch.optim.Adam([self.coefficients], lr=learning_rate)

    def clamped(self) -> Tensor:
        return self.coefficients.detach().clamp(0, 1)

    def step(self, gradient: Tensor) -> None:
        """Update by the gradient in the clamped coefficients, which is none outside [0, 1]."""
        inside = (self.coefficients >= 0) & (self.coefficients <= 1)
        self.coefficients.grad = torch.where(inside, gradient, 0.0)
        self.adam.step()

    def save(self, path: Path, step: int) -> None:
        state = {**self.adam.state[self.coefficients], "coefficients": self.coefficients}
        checkpoints.save(path, state, {"step": str(step)})

    def load(self, path: Path) -> int:
        """Take up the saved state; the number of steps it has seen."""
        state = checkpoints.load(path)
        with torch.no_grad():
            self.coefficients.copy_(state.pop("coefficients"))
        self.adam.state[self.coefficients] = state
        return int(checkpoints.read_metadata(path)["step"])


def _start(engine: Engine, settings: AdaptationSettings) -> Tensor:
    layers, tasks = len(engine.task_vectors.layers), len(engine.task_vectors.task_names)
    shape = (tasks,) if settings.granularity == "task_wise" else (layers, tasks)
    return torch.full(shape, settings.start, dtype=torch.float64)


def _draw(count: int, settings: AdaptationSettings, step: int, seed: tuple[int, ...]) -> np.ndarray:
    return batch_indices(count, settings.images_per_task, step - 1, seed)


def _check(
    engine: Engine, images: Mapping[str, np.ndarray | Tensor], settings: AdaptationSettings
) -> None:
    faults = settings.faults()
    if not engine.task_vectors.layers:
        faults.append("no task changed any tensor of the pretrained model; nothing can be learned")
    for name in engine.task_vectors.task_names:
        if name not in images:
            faults.append(f"task {name} has no images; give unlabeled images of every task")
        elif len(images[name]) == 0:
            faults.append(f"task {name} has 0 images; give at least one")
    if faults:
        raise InputError.listing("adaptation", faults)
