"""Statistics of a fine-tuned model on images of its task, for the merge rules that weigh by data.

Each is computed once per task from unlabeled images and is a plain state dict, so that
adamerge_core.checkpoints saves and loads it. The model is put into evaluation mode. In a
torch.distributed group every rank calls with the same arguments and gets all of the result, equal
to one process's within rounding; each reads and computes its share of the batches.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.distributed import World, world
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.widening import widened

_ATTENTION = inspect.signature(F.multi_head_attention_forward)


@torch.no_grad()
def fisher_diagonal(
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    batch_size: int = 8,
    probes: int = 4,
    seed: int = 0,
) -> StateDict:
    """The diagonal Fisher information of each parameter of a model (arXiv 2111.09832).

    F = mean over images x of E_{y ~ p(y|x)} [(d log p(y|x) / d theta)^2], the expectation over the
    model's own predictions; no labels. encoder: images [N, ...] -> features [N, D]; head: features
    -> logits [N, classes]. Returns, for each floating parameter of the encoder, values >= 0 of its
    shape on its device, in float32 or wider.

    The expectation is the sum over classes of squared gradients weighted by p, one backward pass
    per class, which nobody pays for at 397 classes. Drawing y from p instead is cheap and noisy:
    where the model is sure, nearly all information lies in classes that are hardly ever drawn.
    Here every pass mixes all classes: with a random orthonormal frame q_1 .. q_r in the space of
    classes, F is the mean over frames of
        classes / r * sum_i (sum_c q_ic sqrt(p_c) d log p_c / d theta)^2,
    unbiased for any r = probes, whatever p is, and exact once probes >= classes. More images help
    more than more probes. Frames are drawn image by image from `seed`.

    The authors' code sums over all classes. MergeLM's and FusionBench's add up sqrt(p_c) log p_c
    over the classes and over a batch and square the gradient of that; the products between
    different classes and different images stay in, so it is no Fisher information.

    Gradients of `batch_size` single images exist at a time, which takes the memory of about as many
    models. Raises InputError without images, or if batch_size or probes is below 1.
    """
    _check_counts(images, {"batch_size": batch_size, "probes": probes})
    encoder.eval()
    head.eval()
    parameters = {n: p.detach() for n, p in encoder.named_parameters() if p.is_floating_point()}
    device = next(encoder.parameters()).device
    logits = widened(head(encoder(take(images, slice(0, 1)).to(device))))
    classes = logits.shape[-1]
    frames = _Frames(np.random.default_rng(seed), classes, min(probes, classes))
    group, starts = world(), range(0, len(images), batch_size)

    def mixed_log_probability(tensors: StateDict, image: Tensor, probe: Tensor) -> Tensor:
        features = functional_call(encoder, tensors, (image.unsqueeze(0),))
        log_probabilities = head(features)[0].log_softmax(dim=-1)
        roots = (log_probabilities.detach() / 2).exp()
        return (probe * roots * log_probabilities).sum()

    gradients_of = vmap(grad(mixed_log_probability), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(widened(tensor)) for name, tensor in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for the fused kernels
        for start in starts[group.share(len(starts))]:
            batch = take(images, slice(start, start + batch_size)).to(device)
            for probe in frames.of(start, len(batch)).to(logits).unbind(dim=-1):
                for name, gradients in gradients_of(parameters, batch, probe).items():
                    sums[name] += widened(gradients).square().sum(dim=0)
    return {name: group.sum(total) / len(images) for name, total in sums.items()}


class _Frames:
    """A random orthonormal frame q [classes, rank] per image, with E[q q^T] = identity."""

    def __init__(self, random: np.random.Generator, classes: int, rank: int) -> None:
        self._random, self._shape = random, (classes, rank)
        self._drawn = 0

    def of(self, first: int, count: int) -> Tensor:
        """[count, classes, rank] float64 of the images from `first` on; asked for in order."""
        # those of other ranks' images are drawn too, so that an image has its own whoever asks
        self._random.standard_normal((first - self._drawn, *self._shape))
        gaussian = torch.from_numpy(self._random.standard_normal((count, *self._shape)))
        self._drawn = first + count
        classes, rank = self._shape
        return torch.linalg.qr(gaussian).Q * (classes / rank) ** 0.5


@torch.no_grad()
def gram_matrices(
    encoder: nn.Module, images: np.ndarray | Tensor, batch_size: int = 64
) -> StateDict:
    """Per linear layer the Gram matrix X^T X / rows of its inputs X (arXiv 2212.09849).

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
    _check_counts(images, {"batch_size": batch_size})
    encoder.eval()
    device = next(encoder.parameters()).device
    recorder, group = _InputRecorder(encoder), world()
    starts = range(0, len(images), batch_size)
    try:
        for start in starts[group.share(len(starts))]:
            batch = take(images, slice(start, start + batch_size)).to(device)
            with recorder:
                encoder(batch)
    finally:
        recorder.detach()
    return recorder.means(group)


class _InputRecorder(TorchFunctionMode):
    """While active, adds up X^T X of the inputs of every linear map by a parameter of `encoder`.

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
        """X^T X / rows over the inputs that all ranks have seen; the same call on every rank."""
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
        """Attention as called, its output projection taken out and done here to see its input."""
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
    """What each output position of a convolution sees: [..., C, H, W] -> [..., positions, in]."""
    if padding == "same":
        down, right = (step * (size - 1) for step, size in zip(dilation, kernel, strict=True))
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    amount = (0, 0) if isinstance(padding, str) else padding
    return F.unfold(x, tuple(kernel), dilation, amount, stride).transpose(-1, -2)


def check_statistics(
    needed: str,
    task_vectors: TaskVectors,
    statistics: Mapping[str, Mapping[str, Tensor]],
    shape_for: Callable[[Tensor], tuple[int, ...]],
) -> None:
    """Raise one InputError that lists everything about `statistics` that does not fit.

    needed: the statistic's name. shape_for: a pretrained tensor -> the shape of its statistic.
    Faults: a task without statistics, a tensor that is not the model's, that some tasks have and
    others lack, of another shape, or non-finite.
    """
    given = {name: statistics[name] for name in task_vectors.task_names if statistics.get(name)}
    faults = [
        f"task {name} has no statistics; compute {needed} with its fine-tuned model and images"
        for name in task_vectors.task_names
        if name not in given
    ]
    everywhere = {tensor: None for state in given.values() for tensor in state}
    for task_name, state in given.items():
        faults += [f"{task_name}: tensor {n} is missing" for n in everywhere if n not in state]
        for name, tensor in state.items():
            fault = _misfit(tensor, task_vectors.pretrained.get(name), shape_for)
            faults += [f"{task_name}: tensor {name} {fault}"] if fault else []
    if faults:
        raise InputError.listing(f"{needed} that does not fit the task vectors", faults)


def _misfit(
    tensor: Tensor, pretrained: Tensor | None, shape_for: Callable[[Tensor], tuple[int, ...]]
) -> str | None:
    if pretrained is None:
        return "is no tensor of the pretrained model"
    if tuple(tensor.shape) != shape_for(pretrained):
        return f"has shape {list(tensor.shape)}, must have {list(shape_for(pretrained))}"
    unfit = int((~torch.isfinite(tensor)).sum())
    return f"has {unfit} non-finite values" if unfit else None


def _check_counts(images: np.ndarray | Tensor, counts: Mapping[str, int]) -> None:
    faults = [
        f"{name} = {count}: must be at least 1" for name, count in counts.items() if not count >= 1
    ]
    if len(images) == 0:
        faults.append("0 images; give at least one")
    if faults:
        raise InputError.listing("statistics", faults)
