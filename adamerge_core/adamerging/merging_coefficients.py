"""Merging by coefficients into an encoder's tensors, and the gradient in the coefficients."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from adamerge_core.storage import StoredLayers
from adamerge_core.task_vectors import TaskVectors, as_rows

_READERS = 4
"""Threads that read files: more hold more blocks in memory."""

_SMALL = 2**15
"""Most entries of a small layer: starting a kernel for it costs more than running it."""


@dataclass(frozen=True)
class _Group:
    """Small layers of one size, merged by one batched product."""

    names: list[str]
    rows: Tensor
    """[M] int64, the layers' numbers."""
    pretrained: Tensor
    """[M, 1, n]"""
    stacks: Tensor
    """[M, K, n]"""


class MergingCoefficients:
    """AdaMerging's parameterisation: one coefficient a task, or one a layer and task.

    A layer is theta_pre^l + sum_k lambda_k^l tau_k^l (section 3.2). The parameters are coefficients
    [K] or [L, K] float64. Small layers are copied into batches of one size; each larger stack is
    read once a merge and once a gradient. From files it is read in blocks, by as many threads as
    PyTorch computes with, four at most.
    """

    granularities: ClassVar[tuple[str, ...]] = ("task_wise", "layer_wise")

    def __init__(self, task_vectors: TaskVectors) -> None:
        self.task_vectors = task_vectors
        tensors = {name: task_vectors.pretrained[name] for name in task_vectors.layers}
        self._device = next((t.device for t in tensors.values()), torch.device("cpu"))
        self._dtypes = {tensor.dtype for tensor in tensors.values()}
        self._numbers = {name: number for number, name in enumerate(tensors)}
        self._large = [name for name, tensor in tensors.items() if tensor.numel() > _SMALL]
        sizes: dict[tuple[int, torch.dtype], list[str]] = {}
        for name, tensor in tensors.items():
            if tensor.numel() <= _SMALL:
                sizes.setdefault((tensor.numel(), tensor.dtype), []).append(name)
        self._groups = [self._group(names) for names in sizes.values()]

    def _group(self, names: list[str]) -> _Group:
        vectors = self.task_vectors
        numbers = [self._numbers[name] for name in names]
        return _Group(
            names,
            torch.tensor(numbers, device=self._device),
            torch.stack([vectors.pretrained[name].reshape(1, -1) for name in names]),
            torch.stack([as_rows(vectors.layers[name]) for name in names]),
        )

    @property
    def description(self) -> dict[str, Any]:
        """Empty: no option changes what the coefficients mean."""
        return {}

    def start(self, granularity: str, value: float) -> Tensor:
        """Coefficients of one value: [K] float64 task-wise, [L, K] layer-wise."""
        shape = (len(self.task_vectors.layers), len(self.task_vectors.task_names))
        shape_of = {"task_wise": shape[1:], "layer_wise": shape}
        return torch.full(shape_of[granularity], value, dtype=torch.float64)

    @torch.no_grad()
    def merge_into(self, tensors: Mapping[str, Tensor], parameters: Tensor) -> None:
        """Overwrite each tensor that is a layer with the merged layer of its name."""
        rows = self.task_vectors.expand(parameters)
        weights = {dtype: rows.to(self._device, dtype) for dtype in self._dtypes}
        for group in self._groups:
            chosen = weights[group.stacks.dtype][group.rows].unsqueeze(1)
            merged = torch.baddbmm(group.pretrained, chosen, group.stacks)
            targets = [tensors[name] for name in group.names]
            views = [m.view(t.shape) for m, t in zip(merged, targets, strict=True)]
            torch._foreach_copy_(targets, views)
        self._for_large(
            lambda name: self._merge_layer(
                name, weights[tensors[name].dtype][self._numbers[name]], tensors[name]
            )
        )

    def _merge_layer(self, name: str, weight: Tensor, target: Tensor) -> None:
        """Write one merged layer into `target`; weight: the layer's coefficients [K]."""
        flat = self.task_vectors.pretrained[name].reshape(1, -1)
        contiguous = target.is_contiguous()  # channels last the entries lie in another order
        merged = target.view(1, -1) if contiguous else torch.empty_like(flat)
        for entries, block in self.task_vectors.blocks(name):
            torch.addmm(flat[:, entries], weight.unsqueeze(0), block, out=merged[:, entries])
        if not contiguous:
            target.copy_(merged.view(target.shape))

    @torch.no_grad()
    def pull_back(self, gradients: Mapping[str, Tensor | None], parameters: Tensor) -> Tensor:
        """Turn the gradient in the merged layers into that in the coefficients.

        gradients: by layer name; a layer without one counts as zero. The gradient in lambda_k^l is
        the inner product of the layer's gradient with tau_k^l. Gives the coefficients' shape,
        float64 on the CPU.
        """
        shape = (len(self._numbers), len(self.task_vectors.task_names))
        dtype = reduce(torch.promote_types, self._dtypes, torch.float32)
        result = torch.zeros(shape, dtype=dtype, device=self._device)
        for group in self._groups:
            flat = [_flat(gradients.get(n), group.pretrained[0, 0]) for n in group.names]
            products = torch.bmm(group.stacks, torch.stack(flat).unsqueeze(2))
            result[group.rows] = products.squeeze(2).to(dtype)
        self._for_large(
            lambda name: self._add_products(name, gradients.get(name), result[self._numbers[name]])
        )
        rows = result.cpu().double()
        return rows.sum(dim=0) if parameters.dim() == 1 else rows

    def _add_products(self, name: str, gradient: Tensor | None, result: Tensor) -> None:
        """Add the inner products of a layer's gradient with its task vectors to `result` [K]."""
        if gradient is not None:
            flat = gradient.reshape(-1)
            for entries, block in self.task_vectors.blocks(name):
                result += torch.mv(block, flat[entries])

    def _for_large(self, work: Callable[[str], None]) -> None:
        """Do `work` for every large layer, in threads where the layers are in files."""
        if not isinstance(self.task_vectors.layers, StoredLayers):
            for name in self._large:
                work(name)
            return
        with ThreadPoolExecutor(min(torch.get_num_threads(), _READERS)) as pool:
            # gradients are recorded or not by thread
            list(pool.map(torch.no_grad()(work), self._large))


def _flat(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.reshape(-1)
