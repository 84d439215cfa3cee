"""Adam over the merging parameters, which a clamp may keep in [0, 1]."""

import math

import torch
from torch import Tensor

from adamerge_core.adamerging.settings import AdaptationSettings


class Optimizer:
    """Adam with betas 0.9 and 0.999 over one tensor, under the settings' clamp and schedule."""

    def __init__(self, start: Tensor, settings: AdaptationSettings) -> None:
        self._settings = settings
        self._leaf = start.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._leaf], lr=settings.learning_rate)

    @property
    def parameters(self) -> Tensor:
        """A copy of the parameters for the forward pass: in [0, 1] unless the clamp is none."""
        values = self._leaf.detach().clone()
        return values.clamp_(0, 1) if self._settings.clamp == "published" else values

    def step(self, gradient: Tensor, step: int) -> None:
        """Update the parameters by the gradient in them; step: the update's number, from 1."""
        if self._settings.clamp == "published":
            inside = (self._leaf >= 0) & (self._leaf <= 1)
            gradient = torch.where(inside, gradient, 0.0)
        self._leaf.grad = gradient
        self._adam.param_groups[0]["lr"] = learning_rate_at(self._settings, step)
        self._adam.step()
        if self._settings.clamp == "projected":
            with torch.no_grad():
                self._leaf.clamp_(0, 1)

    def state(self) -> dict[str, Tensor]:
        """The parameters and Adam's moments, for a run that resumes."""
        return {**self._adam.state[self._leaf], "parameters": self._leaf.detach()}

    def layout(self) -> dict[str, Tensor]:
        """Tensors of the names, shapes and dtypes that `state` returns after a step."""
        shape = torch.empty_like(self._leaf, device="meta", requires_grad=False)
        step = torch.empty((), dtype=torch.float32, device="meta")
        return {"step": step, "exp_avg": shape, "exp_avg_sq": shape, "parameters": shape}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""
        moments = dict(state)
        with torch.no_grad():
            self._leaf.copy_(moments.pop("parameters"))
        self._adam.state[self._leaf] = moments


def learning_rate_at(settings: AdaptationSettings, step: int) -> float:
    """The learning rate of a step, counted from 1.

    The cosine is at its highest at the first step and above 0 at the last.
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
