"""Tiny models in float64 and the published formulas written naively, shared by the tests."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge_core.adamerging import AdaptationSettings
from adamerge_core.batches import batch_indices
from adamerge_core.task_vectors import TaskVectors

torch.set_num_threads(1)

CLASSES = {"digits": 3, "letters": 5, "signs": 2}
"""Number of classes by task."""

UNCHANGED = "hidden.bias"
"""The tensor of the tiny encoder that no fine-tuning changes."""


def rule_for(value: float, rule: str) -> str:
    """Pattern of a refusal: what is not finite is refused by its type, before its range."""
    return rule if math.isfinite(value) else "must be a finite number"


class TinyEncoder(nn.Module):
    """Convolution, linear, linear: float64 [N, 2, 5, 5] -> [N, 6], with an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)
        self.hidden = nn.Linear(27, 7)
        self.projection = nn.Linear(7, 6)
        self.register_buffer("batches_seen", torch.tensor(7))
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.tanh(self.convolution(images)).flatten(1)
        return self.projection(torch.tanh(self.hidden(maps)))


@dataclass(frozen=True)
class Problem:
    """What a merge is made of: one pretrained encoder, K fine-tuned ones, K heads, images."""

    encoder: TinyEncoder
    pretrained: dict[str, Tensor]
    finetuned: dict[str, dict[str, Tensor]]
    heads: dict[str, nn.Module]
    images: dict[str, Tensor]

    @property
    def task_vectors(self) -> TaskVectors:
        return TaskVectors.from_checkpoints(self.pretrained, self.finetuned)

    def to(self, dtype: torch.dtype) -> Problem:
        """The same, rounded to another dtype; heads and encoder are copies."""

        def rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}

        return Problem(
            copy.deepcopy(self.encoder).to(dtype),
            rounded(self.pretrained),
            {name: rounded(state) for name, state in self.finetuned.items()},
            {name: copy.deepcopy(head).to(dtype) for name, head in self.heads.items()},
            rounded(self.images),
        )


def tiny_problem(seed: int = 0, images: int = 11, distance: float = 0.5) -> Problem:
    """Random weights; `distance` is the spread of the task vectors' entries.

    Task number k has `images` + k images, so that no two tasks have as many.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    encoder = TinyEncoder()
    pretrained = {
        name: noise(tensor.shape) * 0.4 if tensor.is_floating_point() else tensor.clone()
        for name, tensor in encoder.state_dict().items()
    }
    finetuned, heads = {}, {}
    for task_name, classes in CLASSES.items():
        finetuned[task_name] = {
            name: tensor + distance * noise(tensor.shape)
            if tensor.is_floating_point() and name != UNCHANGED
            else tensor.clone()
            for name, tensor in pretrained.items()
        }
        heads[task_name] = nn.Linear(6, classes, dtype=torch.float64).requires_grad_(False)
        heads[task_name].weight.copy_(noise((classes, 6)))
        heads[task_name].bias.copy_(noise((classes,)))
    pixels = {name: noise((images + k, 2, 5, 5)) for k, name in enumerate(CLASSES)}
    return Problem(encoder, pretrained, finetuned, heads, pixels)


def naive_vectors(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    """Task -> layer -> theta_k - theta_pre, for the tensors that some task changed."""
    return _changed(problem, _all_floating(problem))


def naive_trimmed_vectors(problem: Problem, keep: float) -> dict[str, dict[str, np.ndarray]]:
    """Those of Ties-Merging, which counts the tensors that no task changed, for the others."""
    return _changed(problem, naive_trim_and_elect(_all_floating(problem), keep))


def _all_floating(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    names = [name for name, tensor in problem.pretrained.items() if tensor.is_floating_point()]
    return {
        task_name: {n: (state[n] - problem.pretrained[n]).numpy() for n in names}
        for task_name, state in problem.finetuned.items()
    }


def _changed(
    problem: Problem, vectors: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    names = [
        name
        for name, tensor in problem.pretrained.items()
        if any(not torch.equal(state[name], tensor) for state in problem.finetuned.values())
    ]
    return {task: {name: vector[name] for name in names} for task, vector in vectors.items()}


def naive_merge(
    pretrained: dict[str, Tensor], vectors: dict[str, dict[str, np.ndarray]], coefficients: Tensor
) -> dict[str, Tensor]:
    """theta_pre + sum_k lambda_k tau_k, tensor by tensor; differentiable in the coefficients."""
    merged = dict(pretrained)
    for k, vector in enumerate(vectors.values()):
        for layer, (name, values) in enumerate(vector.items()):
            weight = coefficients[k] if coefficients.dim() == 1 else coefficients[layer, k]
            merged[name] = merged[name] + weight * torch.as_tensor(values)
    return merged


def naive_entropies(
    problem: Problem,
    vectors: dict[str, dict[str, np.ndarray]],
    coefficients: Tensor,
    images: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Per task the mean Shannon entropy of the merged model's predictions."""
    merged = naive_merge(problem.pretrained, vectors, coefficients)
    return {
        task_name: naive_entropy(logits)
        for task_name, logits in naive_logits(problem, merged, images).items()
    }


def naive_logits(
    problem: Problem, state: dict[str, Tensor], images: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Per task the logits of the encoder with the tensors of `state`."""
    return {
        task_name: problem.heads[task_name](
            functional_call(problem.encoder, state, (images[task_name],))
        )
        for task_name in problem.heads
    }


def naive_entropy(logits: Tensor) -> Tensor:
    """The mean Shannon entropy of softmax(logits)."""
    probabilities = logits.softmax(dim=1)
    return -(probabilities * probabilities.log()).sum(dim=1).mean()


def naive_adaptation(
    losses_of: Callable[[Tensor, dict[str, np.ndarray]], dict[str, Tensor]],
    rows: dict[str, np.ndarray],
    start: Tensor,
    chosen: AdaptationSettings,
    seed: int,
) -> tuple[list[dict[str, float]], list[Tensor]]:
    """Adam on a leaf, batch by batch: mean losses and parameters after the update, by step.

    losses_of: (parameters, rows of the images by task) -> each task's mean loss, differentiable.
    rows: the images that may be drawn.
    """
    leaf = start.clone().requires_grad_()
    adam = torch.optim.Adam([leaf], lr=chosen.learning_rate, betas=(0.9, 0.999), weight_decay=0)
    losses, parameters = [], []
    for step in range(chosen.steps):
        if chosen.schedule == "cosine":
            share = (1 + math.cos(math.pi * step / chosen.steps)) / 2
            adam.param_groups[0]["lr"] = chosen.learning_rate * share
        adam.zero_grad()
        means = dict.fromkeys(rows, 0.0)
        for batch in range(chosen.batches_per_step):
            drawn = chosen.batches_per_step * step + batch
            batches = {
                name: usable[batch_indices(len(usable), chosen.images_per_task, drawn, (seed, k))]
                for k, (name, usable) in enumerate(rows.items())
            }
            terms = losses_of(leaf.clamp(0, 1) if chosen.clamp == "published" else leaf, batches)
            sum(terms.values()).backward()
            for name, term in terms.items():
                means[name] += term.item() / chosen.batches_per_step
        adam.step()
        if chosen.clamp == "projected":
            leaf.data.clamp_(0, 1)
        losses.append(means)
        seen = leaf.detach().clone()
        parameters.append(seen.clamp(0, 1) if chosen.clamp == "published" else seen)
    return losses, parameters


def naive_trim_and_elect(
    vectors: dict[str, dict[str, np.ndarray]], keep: float
) -> dict[str, dict[str, np.ndarray]]:
    """Ties-Merging's preprocessing as published, over each task's whole flat vector."""
    flat = np.stack([np.concatenate([v.ravel() for v in vs.values()]) for vs in vectors.values()])
    count = flat.shape[1]
    for row in flat:
        rank = max(count - int(keep * count), 1)  # the rank-th smallest, counted from 1
        row[np.abs(row) < np.sort(np.abs(row))[rank - 1]] = 0
    signs = np.sign(flat.sum(axis=0))
    signs[signs == 0] = np.sign(signs.sum())
    flat[np.sign(flat) != signs] = 0
    result = {}
    for row, (task_name, vector) in zip(flat, vectors.items(), strict=True):
        result[task_name], start = {}, 0
        for name, values in vector.items():
            result[task_name][name] = row[start : start + values.size].reshape(values.shape)
            start += values.size
    return result


def stacked(vectors: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Layer -> [K, *shape], as TaskVectors holds them."""
    names = next(iter(vectors.values()))
    return {name: np.stack([vector[name] for vector in vectors.values()]) for name in names}
