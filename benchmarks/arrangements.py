"""Arrangements of one adaptation step: how merge, forward and backward follow each other.

Each is given a problem, task vectors, the images of a micro-batch and a precision, and gives the
step: from coefficients [L, K] to the gradient of the summed entropy in them.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from adamerge_core.adamerging import Engine
from adamerge_core.entropy import softmax_entropy
from adamerge_core.task_vectors import TaskVectors
from benchmarks.random_models import Problem

Step = Callable[[Tensor], Tensor | None]
"""From coefficients [L, K] to the gradient in them; None from the floor, which has none."""


def published(problem: Problem, vectors: TaskVectors, micro_batch: int, precision: str) -> Step:
    """As published with arXiv 2310.02575: one graph holds every task's merge and activations."""

    def step(coefficients: Tensor) -> Tensor:
        learned = coefficients.clone().requires_grad_()
        losses = [
            _entropy(problem, name, merge(vectors, learned), precision)
            for name in vectors.task_names
        ]
        return torch.autograd.grad(torch.stack(losses).sum(), learned)[0]

    return step


def merge_once(problem: Problem, vectors: TaskVectors, micro_batch: int, precision: str) -> Step:
    """As FusionBench has it: the merge's graph is kept for the backward of every task."""

    def step(coefficients: Tensor) -> Tensor:
        learned = coefficients.clone().requires_grad_()
        merged = merge(vectors, learned)
        gradient = torch.zeros_like(coefficients)
        for name in vectors.task_names:
            # as there, a task's graph lives until the next one's loss takes its name
            loss = _entropy(problem, name, merged, precision)
            gradient += torch.autograd.grad(loss, learned, retain_graph=True)[0]
        return gradient

    return step


def engine(
    problem: Problem, vectors: TaskVectors, micro_batch: int, precision: str, compiled: bool = False
) -> Engine:
    """compiled: its encoder by torch.compile, on a GPU with CUDA graphs; the problem's is not."""
    encoder = copy.copy(problem.encoder)  # shares its tensors, not what is compiled
    if compiled:
        on_gpu = next(encoder.parameters()).is_cuda
        encoder.compile(mode="reduce-overhead" if on_gpu else "default")
    return Engine(encoder, vectors, problem.heads, micro_batch, precision)


def ours(
    problem: Problem, vectors: TaskVectors, micro_batch: int, precision: str, compiled: bool = False
) -> Step:
    chosen = engine(problem, vectors, micro_batch, precision, compiled)
    return lambda coefficients: chosen.loss_and_gradient(coefficients, problem.images).gradient


def merging(problem: Problem, vectors: TaskVectors, micro_batch: int, precision: str) -> Step:
    """What ours adds to the floor, alone: the merge, and inner products with random gradients."""
    chosen = engine(problem, vectors, micro_batch, precision)
    gradients = {n: torch.randn_like(p) for n, p in problem.encoder.named_parameters()}

    def step(coefficients: Tensor) -> Tensor:
        chosen.merge(coefficients)
        return chosen.parameterisation.pull_back(gradients, coefficients)

    return step


def floor(problem: Problem, vectors: None, micro_batch: int, precision: str) -> Step:
    """The Engine's micro-batches, through the encoder as it is."""
    names, encoder = tuple(problem.heads), problem.encoder
    each = len(problem.images[names[0]])
    total = each * len(names)

    def step(coefficients: Tensor) -> None:
        encoder.zero_grad(set_to_none=True)
        everything = torch.cat([problem.images[name] for name in names])
        for start in range(0, total, micro_batch):
            end = min(start + micro_batch, total)
            features = _features(problem, everything[start:end], {}, precision)
            losses = []
            for k in range(start // each, -(-end // each)):
                part = features[max(k * each - start, 0) : (k + 1) * each - start]
                losses.append(softmax_entropy(problem.heads[names[k]](part)).sum() / each)
            torch.stack(losses).sum().backward()

    return step


IN_FILES = "ours_in_files"
COMPILED = "ours_compiled"
MERGING = "merging"
OURS = ("ours", IN_FILES, COMPILED)
"""The Engine, with the task vectors in memory and in files, and on a compiled encoder."""

ARRANGEMENTS: dict[str, Callable[..., Step]] = {
    "published": published,
    "merge_once": merge_once,
    "ours": ours,
    IN_FILES: ours,
    COMPILED: partial(ours, compiled=True),
    MERGING: merging,
    "floor": floor,
}


def merge(vectors: TaskVectors, coefficients: Tensor) -> dict[str, Tensor]:
    """theta_pre + sum_k lambda_k tau_k, differentiable in the coefficients [L, K].

    The sum of K products a layer, as in both codes.
    """
    merged = dict(vectors.pretrained)
    for row, (name, stack) in zip(coefficients, vectors.layers.items(), strict=True):
        for coefficient, task_vector in zip(row.to(stack), stack, strict=True):
            merged[name] = merged[name] + coefficient * task_vector
    return merged


def _entropy(problem: Problem, name: str, tensors: dict[str, Tensor], precision: str) -> Tensor:
    features = _features(problem, problem.images[name], tensors, precision)
    return softmax_entropy(problem.heads[name](features)).mean()


def _features(
    problem: Problem, images: Tensor, tensors: dict[str, Tensor], precision: str
) -> Tensor:
    lowered = precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=lowered):
        features = functional_call(problem.encoder, tensors, (images,))
    return features.float() if lowered else features
