"""AdaRank: binary masks over the singular components of every task vector (arXiv 2503.22178)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adamerge_core.adamerging.merging_coefficients import MergingCoefficients
from adamerge_core.errors import InputError
from adamerge_core.merging.spectral import as_matrices, is_matrix, thin_svd
from adamerge_core.task_vectors import TaskVectors

_LOGIT = 0.1
"""The first logit of a component that is kept at the start; the others have its negative."""


@dataclass(frozen=True)
class _Components:
    """The singular components of one layer's K task vectors, side by side."""

    left: Tensor
    """[out, K r]: U_1 ... U_K"""
    values: Tensor
    """[K, r], descending"""
    right: Tensor
    """[K r, in]: the rows of V_1^T ... V_K^T"""


class SingularMasks:
    """AdaRank's parameterisation: masks of singular components, and merging coefficients.

    A layer is theta_pre + sum_k lambda_k^l U_k diag(s_k b_k) V_k^T, with masks b. b = 1 where a
    component's logit m is above 0; its gradient is that of sigmoid(m / temperature)
    (straight-through). Matrix layers (merging.spectral.is_matrix; kernels as [out, in * h * w]) are
    masked; the others are merged by their coefficients alone. Coefficients are layer-wise and
    learned along, as in the published code. That code masks the weights of attention and MLP blocks
    only; here every matrix is, patch and position embeddings included.

    Its parameters are one vector float64: the coefficients [L, K], then per matrix layer the logits
    [K, r], r = min(out, in). `coefficients` and `masks` read them. Factors take about twice the
    memory of the task vectors; those of a dtype below float32 are float32.
    """

    granularities: ClassVar[tuple[str, ...]] = ("singular_components",)

    def __init__(
        self, task_vectors: TaskVectors, rank_share: float = 1.0, temperature: float = 10.0
    ) -> None:
        """
        rank_share: the share of each layer's components, from the largest, that start unmasked, in
        [0, 1]. temperature: T of the sigmoid, above 0. 1.0 and 10 are published for task
        arithmetic. Raises InputError listing the values outside these ranges.
        """
        faults = []
        if not 0 <= rank_share <= 1:
            faults.append(f"rank_share = {rank_share}: must be in [0, 1]")
        if not 0 < temperature < math.inf:
            faults.append(f"temperature = {temperature}: must be above 0 and finite")
        if faults:
            raise InputError.listing("AdaRank", faults)
        self.rank_share, self.temperature = rank_share, temperature
        self.task_vectors = task_vectors
        self._components: dict[str, _Components] = {}
        self._masked, self._others, others = [], [], {}
        for row, (name, stack) in enumerate(task_vectors.layers.items()):
            if is_matrix(stack):
                self._components[name] = _decompose(stack)
                self._masked.append(row)
            else:
                others[name] = stack
                self._others.append(row)
        self._rest = MergingCoefficients(
            TaskVectors(task_vectors.pretrained, task_vectors.task_names, others)
        )

    @property
    def description(self) -> dict[str, Any]:
        """The two options, as JSON; state files record them."""
        return {"rank_share": self.rank_share, "temperature": self.temperature}

    def start(self, granularity: str, value: float) -> Tensor:
        """The parameters with all coefficients at `value` and the first components unmasked."""
        shape = (len(self.task_vectors.layers), len(self.task_vectors.task_names))
        parts = [torch.full(shape, value, dtype=torch.float64).flatten()]
        for each in self._components.values():
            logits = torch.full(each.values.shape, -_LOGIT, dtype=torch.float64)
            logits[:, : int(self.rank_share * each.values.shape[1])] = _LOGIT
            parts.append(logits.flatten())
        return torch.cat(parts)

    def coefficients(self, parameters: Tensor) -> Tensor:
        """Read the merging coefficients [L, K] out of the parameters."""
        shape = (len(self.task_vectors.layers), len(self.task_vectors.task_names))
        return parameters[: math.prod(shape)].view(shape)

    def masks(self, parameters: Tensor) -> dict[str, Tensor]:
        """Read the masks [K, r] bool of the matrix layers, from the largest component on."""
        return {name: logits > 0 for name, _, logits in self._layers(parameters)}

    def _layers(self, parameters: Tensor) -> Iterator[tuple[str, _Components, Tensor]]:
        """Go through the matrix layers: (name, components, logits [K, r])."""
        end = self.coefficients(parameters).numel()
        for name, each in self._components.items():
            first, end = end, end + each.values.numel()
            yield name, each, parameters[first:end].view(each.values.shape)

    @torch.no_grad()
    def merge_into(self, tensors: Mapping[str, Tensor], parameters: Tensor) -> None:
        """Overwrite each tensor that is a layer with the merged layer of its name."""
        coefficients = self.coefficients(parameters)
        self._rest.merge_into(tensors, coefficients[self._others])
        for row, (name, each, logits) in zip(self._masked, self._layers(parameters), strict=True):
            weights = (coefficients[row].unsqueeze(1) * (logits > 0)).to(each.values)
            scaled = each.left * (weights * each.values).flatten()
            pretrained = self.task_vectors.pretrained[name]
            flat = pretrained.reshape(len(pretrained), -1).to(each.values.dtype)
            merged = torch.addmm(flat, scaled, each.right)
            tensors[name].copy_(merged.view(pretrained.shape))

    @torch.no_grad()
    def pull_back(self, gradients: Mapping[str, Tensor | None], parameters: Tensor) -> Tensor:
        """Turn the gradient in the merged layers into that in the parameters: [P] float64, CPU.

        With p_ki = s_ki u_ki^T G v_ki, where G is the gradient in the merged layer, it is
        sum_i b_ki p_ki in lambda_k and lambda_k p_ki sigmoid'(m_ki / T) / T in m_ki.
        """
        coefficients = self.coefficients(parameters)
        result = torch.zeros_like(parameters)
        in_coefficients = self.coefficients(result)  # a view
        in_coefficients[self._others] = self._rest.pull_back(gradients, coefficients[self._others])
        both = zip(self._layers(parameters), self._layers(result), strict=True)
        for row, ((name, each, logits), (_, _, in_logits)) in zip(self._masked, both, strict=True):
            gradient = gradients.get(name)
            if gradient is None:
                continue
            flat = gradient.reshape(len(gradient), -1).to(each.values.dtype)
            products = ((each.left.T @ flat) * each.right).sum(dim=1).view(each.values.shape)
            projections = (each.values * products).cpu().double()
            soft = torch.sigmoid(logits / self.temperature)
            slope = soft * (1 - soft) / self.temperature
            in_coefficients[row] = (projections * (logits > 0)).sum(dim=1)
            in_logits.copy_(coefficients[row].unsqueeze(1) * projections * slope)
        return result


def _decompose(stack: Tensor) -> _Components:
    left, values, right = thin_svd(as_matrices(stack))
    return _Components(left.transpose(0, 1).flatten(1), values, right.flatten(0, 1))
