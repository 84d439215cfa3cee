"""Gram matrices of the inputs of linear layers, from which RegMean fits its weights."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from adamerge_core.batches import take, taken_by
from adamerge_core.checkpoints import StateDict
from adamerge_core.distributed import World, world
from adamerge_core.statistics.checks import check_counts
from adamerge_core.widening import widened

_ATTENTION = inspect.signature(F.multi_head_attention_forward)


@torch.no_grad()
def gram_matrices(
    encoder: nn.Module, images: np.ndarray | Tensor, batch_size: int = 64
) -> StateDict:
    """Compute the Gram matrix X^T X / rows of the inputs X of each linear layer (arXiv 2212.09849).

    encoder: images [N, ...] -> features. Returns {name of the weight: [in, in]} in float32 or
    wider, on the encoder's device. A row of X is what one row of the output is computed from: a
    token, or for a convolution the [in_channels * height * width] patch under the kernel.

    Covered are parameters used as the weight of torch's `linear` (nn.Linear, or a bare parameter),
    of nn.Conv2d without groups, and both projections of nn.MultiheadAttention where query, key and
    value are one tensor (otherwise its input projection has three inputs and is left out).
    Parameters used in any other way, such as `x @ projection`, are left out.

    The paper sums over rows; this is the mean, as in MergeLM's and FusionBench's code, so that
    tasks count alike however many images each gives; with equal counts both merge to the same.
    Those codes cover nn.Linear alone. Raises InputError without images, or if batch_size is
    below 1.
    """
    check_counts(images, {"batch_size": batch_size})
    encoder.eval()
    device = next(encoder.parameters()).device
    recorder, group = _InputRecorder(encoder), world()
    starts = range(0, len(images), batch_size)
    try:
        for start in starts[group.share(len(starts))]:
            batch = take(images, slice(start, start + batch_size)).to(device)
            with taken_by("the encoder", batch), recorder:
                encoder(batch)
    finally:
        recorder.detach()
    return recorder.means(group)


class _InputRecorder(TorchFunctionMode):
    """A mode that adds up X^T X of the inputs of every linear map by a parameter of `encoder`.

    Modules are no place to listen: nn.MultiheadAttention never calls its out_proj. Weights are
    recognised where they are used, by identity; convolutions by the module that runs, since it may
    compute the kernel from its weight, for example to apply the batch norm after it.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.sums: StateDict = {}
        self.rows: dict[str, int] = {}
        self._device = next(encoder.parameters()).device
        self._names = {id(tensor): name for name, tensor in encoder.named_parameters()}
        self._running: str | None = None
        self._handles = [
            module.register_forward_pre_hook(self._note_convolution)
            for module in encoder.modules()
            if isinstance(module, nn.Conv2d)
        ]

    def detach(self) -> None:
        """Take the hooks off the encoder."""
        for handle in self._handles:
            handle.remove()

    def means(self, group: World) -> StateDict:
        """Divide the sums by the rows, over the inputs of all ranks; every rank calls it."""
        own = {name: (self.rows[name], len(s), s.dtype) for name, s in self.sums.items()}
        seen = group.gather(own)
        everywhere = {name: (side, d) for part in seen for name, (_, side, d) in part.items()}
        means = {}
        for name, (side, dtype) in everywhere.items():
            nothing = torch.zeros(side, side, dtype=dtype, device=self._device)
            rows = sum(part[name][0] for part in seen if name in part)
            means[name] = group.sum(self.sums.get(name, nothing)) / rows
        return means

    def __torch_function__(
        self,
        function: Callable,
        types: Any,
        arguments: tuple = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        if function is F.multi_head_attention_forward:
            return self._attend(_ATTENTION.bind(*arguments, **keywords).arguments)
        if function is F.linear:
            self._see_linear(*arguments, **keywords)
        elif function is F.conv2d:
            self._see_convolution(*arguments, **keywords)
        return function(*arguments, **keywords)

    def _add(self, name: str, rows: Tensor) -> None:
        rows = widened(rows).flatten(end_dim=-2)
        if name not in self.sums:
            self.sums[name] = rows.new_zeros(rows.shape[-1], rows.shape[-1])
            self.rows[name] = 0
        self.sums[name].addmm_(rows.T, rows)
        self.rows[name] += len(rows)

    def _see_linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        if id(weight) in self._names:
            self._add(self._names[id(weight)], input)

    def _note_convolution(self, module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        self._running = self._names.get(id(module.weight))

    def _see_convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int] | str,
        dilation: tuple[int, int],
        groups: int,
    ) -> None:
        name, self._running = self._running, None
        if name is not None and groups == 1:
            self._add(name, _patches(input, weight.shape[2:], stride, padding, dilation))

    def _attend(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Run attention with its output projection done here, so that its input is seen."""
        query, weight = arguments["query"], arguments["out_proj_weight"]
        if query is arguments["key"] and query is arguments["value"]:
            self._see_linear(query, arguments["in_proj_weight"])
        identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        unprojected = {**arguments, "out_proj_weight": identity, "out_proj_bias": None}
        attended, attention = F.multi_head_attention_forward(**unprojected)
        self._see_linear(attended, weight)
        return F.linear(attended, weight, arguments["out_proj_bias"]), attention


def _patches(
    x: Tensor,
    kernel: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int] | str,
    dilation: tuple[int, int],
) -> Tensor:
    """Cut the patches under a convolution's kernel: [..., C, H, W] -> [..., positions, in]."""
    if padding == "same":
        down, right = (step * (size - 1) for step, size in zip(dilation, kernel, strict=True))
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    amount = (0, 0) if isinstance(padding, str) else padding
    return F.unfold(x, tuple(kernel), dilation, amount, stride).transpose(-1, -2)
