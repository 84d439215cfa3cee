"""The loss of a merged model and its gradient in the merging parameters."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from adamerge_core.adamerging.merging_coefficients import MergingCoefficients
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.precision import PRECISIONS, backward, faster_precision
from adamerge_core.batches import rows_between, taken_by
from adamerge_core.distributed import World, world
from adamerge_core.entropy import softmax_entropy
from adamerge_core.errors import InputError
from adamerge_core.parameters import count_faults
from adamerge_core.storage import LazyLayers
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.widening import widened


class Parameterisation(Protocol):
    """A map from few learned parameters to the merged layers, with its gradient."""

    granularities: ClassVar[tuple[str, ...]]
    """The granularities of AdaptationSettings that it can learn."""

    @property
    def description(self) -> dict[str, Any]:
        """Options that change what the parameters mean, as JSON; state files record them."""

    def start(self, granularity: str, value: float) -> Tensor:
        """The parameters before the first step, with every merging coefficient at `value`."""

    def merge_into(self, tensors: Mapping[str, Tensor], parameters: Tensor) -> None:
        """Overwrite each tensor that is a layer with the merged layer of its name."""

    def pull_back(self, gradients: Mapping[str, Tensor | None], parameters: Tensor) -> Tensor:
        """Turn the gradient in the merged layers into that in the parameters.

        gradients: by layer name, None where there is none. Gives the parameters' shape, float64 on
        the CPU.
        """


class LossAndGradient(NamedTuple):
    """The losses of one merged model, and their gradient in the merging parameters."""

    loss: dict[str, float]
    """Per task the mean of the objective over its images."""
    entropy: dict[str, float]
    """Per task the mean entropy in nats; equal to the loss where entropy is the objective."""
    gradient: Tensor
    """d(sum of the losses over tasks)/d(parameters), of their shape, float64 on the CPU."""


class Engine:
    """An engine merges into one encoder and differentiates by products with the task vectors.

    With theta(lambda) = theta_pre + sum_k lambda_k tau_k, the gradient of the loss in lambda_k^l is
    the inner product of its gradient in theta^l with tau_k^l. So a step merges once, treats the
    merged tensors as leaves, runs all tasks' images through them, and reads the task vectors once
    more for the inner products.

    The engine puts encoder and heads into evaluation mode. It overwrites the encoder's tensors at
    every merge. The encoder's parameters that are layers require gradients and keep the last ones;
    no other parameter requires any, the heads' included. The task vectors are only read.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        micro_batch: int | None = None,
        precision: str = "auto",
        parameterisation: Callable[[TaskVectors], Parameterisation] = MergingCoefficients,
    ) -> None:
        """
        encoder: images of any form [N, ...] -> features [N, D]; its state dict has the names and
        shapes of the pretrained one. heads: per task, features [N, D] -> logits [N, classes].
        micro_batch: images per forward and backward; None takes all at once. The gradient is the
        same. precision: float32 computes in the parameters' dtype. bfloat16 runs the encoder under
        autocast; bfloat16_backward does only the products of the backward pass in bfloat16, which
        changes the gradient far less. Merge, heads, loss and inner products stay as they are. auto
        measures all three on the first images given, takes the fastest whose gradient is within 1 %
        of float32's, if it is at least 1.15 times as fast, and logs the figures; name one where
        results must be the same on every machine. An encoder in another dtype than float32 is never
        lowered, and one that is compiled has no bfloat16_backward.
        parameterisation: what is learned, merging coefficients or AdaRank's SingularMasks.
        Encoder, heads and task vectors are on one device. Raises InputError listing what does not
        fit.
        """
        self._check(encoder, task_vectors, heads, micro_batch, precision)
        self.encoder = encoder.eval()
        self.task_vectors = task_vectors
        self.heads = {n: heads[n].eval().requires_grad_(False) for n in task_vectors.task_names}
        self.micro_batch = micro_batch
        self.device = next(encoder.parameters()).device
        self.precision = precision if _dtype(encoder) == torch.float32 else "float32"
        self.parameterisation = parameterisation(task_vectors)
        self._parameters = dict(encoder.named_parameters())
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in task_vectors.layers)
        encoder.load_state_dict(task_vectors.pretrained)

    @staticmethod
    def _check(
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        micro_batch: int | None,
        precision: str,
    ) -> None:
        faults = misfits(encoder, task_vectors, heads)
        if not _no_parts(encoder, task_vectors, heads):
            faults += _displaced(encoder, task_vectors, heads)
        if micro_batch is not None:
            wrong = count_faults("micro_batch", micro_batch)
            faults += [f"{line}, or None for all" for line in wrong]
        if not isinstance(precision, str) or precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            faults.append(f"precision = {precision!r}: must be one of {known}")
        if precision == "bfloat16_backward" and _is_compiled(encoder):
            faults.append(
                f"precision = {precision!r}: does not reach into a compiled encoder; leave it "
                "uncompiled or take float32 or bfloat16"
            )
        if faults:
            raise InputError.listing(
                "an encoder that does not fit its task vectors", sorted(faults)
            )

    def merge(self, parameters: Tensor) -> None:
        """Write the merged layers into the encoder, by coefficients [K] or [L, K]."""
        # the state dict shares its storage with the encoder
        self.parameterisation.merge_into(self.encoder.state_dict(), parameters)

    def loss_and_gradient(
        self,
        parameters: Tensor,
        images: Mapping[str, Tensor],
        targets: Mapping[str, Tensor] | None = None,
        objective: str = "entropy",
        counts: Mapping[str, int] | None = None,
        exact_backward: bool = False,
    ) -> LossAndGradient:
        """Merge, and compute each task's mean loss and entropy and the gradient of the loss sum.

        parameters: coefficients [K] or [L, K], or the vector of another parameterisation. images:
        per task [N_k, ...], not empty; a task that is not there has no loss. targets: per task
        labels [N_k] int64 or probabilities [N_k, classes], for objectives that need them. Losses
        are computed in float32 or wider. exact_backward: bfloat16_backward does not lower this
        backward pass.

        counts: per task the number of images, above 0, on all ranks of the torch.distributed group
        together, where `images` are this rank's share, of any size. Then every rank calls this
        method and gets the same bits: the means over all ranks' images and the gradient of their
        sum.
        """
        names = self._measured(images)
        group = World() if counts is None else world()
        sizes = counts or {name: len(images[name]) for name in names}

        self.merge(parameters)
        if self.precision == "auto":
            self.precision = self._fastest(parameters, images, targets, objective, group)
        exact = exact_backward and self.precision == "bfloat16_backward"
        precision = "float32" if exact else self.precision
        means = self._forward_and_backward(images, targets, objective, sizes, precision)
        gradient = self.parameterisation.pull_back(self._gradients(), parameters)

        # in one message: it costs more to send several than to send more
        message = group.sum(torch.cat([means.flatten().cpu(), gradient.flatten()]))
        loss, entropy = message[: means.numel()].view(means.shape).tolist()
        return LossAndGradient(
            dict(zip(names, loss, strict=True)),
            dict(zip(names, entropy, strict=True)),
            message[means.numel() :].view(gradient.shape),
        )

    def _forward_and_backward(
        self,
        images: Mapping[str, Tensor],
        targets: Mapping[str, Tensor] | None,
        objective: str,
        sizes: Mapping[str, int],
        precision: str,
    ) -> Tensor:
        """Leave the gradient of the summed losses in the encoder's parameters.

        sizes: the number of images by which each task's sums are divided. Gives the tasks' mean
        losses and entropies, [2, K] float64.
        """
        names, function = self._measured(images), OBJECTIVES[objective]
        self._clear_gradients()
        everything = torch.cat([images[name] for name in names]).to(self.device)
        # summed where they are computed: reading each one would wait for the device every time
        means = torch.zeros(2, len(names), dtype=torch.float64, device=self.device)
        for start, parts in _chunks({n: len(images[n]) for n in names}, self.micro_batch):
            lengths = [rows.stop - rows.start for _, rows in parts]
            chunk = everything[start : start + sum(lengths)]
            features = self._features(chunk, precision).split(lengths)
            losses = []
            for (name, rows), part in zip(parts, features, strict=True):
                logits = self._logits(name, part)
                known = targets[name][rows] if targets else None
                losses.append(function(logits, known).sum() / sizes[name])
                loss = entropy = losses[-1].detach()
                if objective != "entropy":
                    entropy = softmax_entropy(logits.detach()).sum() / sizes[name]
                means[:, names.index(name)] += torch.stack([loss, entropy])
            backward(torch.stack(losses).sum(), precision)
        return means

    def _measured(self, images: Mapping[str, Tensor]) -> list[str]:
        """The tasks that there are images of, in the order of the task vectors."""
        return [name for name in self.task_vectors.task_names if name in images]

    def _gradients(self) -> dict[str, Tensor | None]:
        """The gradients that the encoder's parameters hold, by name."""
        return {name: parameter.grad for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def logits(self, task_name: str, images: Tensor) -> Tensor:
        """The logits [N, classes] of the model last merged, float32 or wider."""
        return self._logits(task_name, self._features(images.to(self.device), self.precision))

    def _fastest(
        self,
        parameters: Tensor,
        images: Mapping[str, Tensor],
        targets: Mapping[str, Tensor] | None,
        objective: str,
        group: World,
    ) -> str:
        """The precision that the first rank finds the fastest, on its first micro-batch."""
        if group.rank != 0:  # the first rank has images if any has
            return group.gather("")[0]
        name = max(self._measured(images), key=lambda task_name: len(images[task_name]))
        few = images[name][: self.micro_batch].to(self.device)
        labels = targets[name][: len(few)] if targets else None

        def run(precision: str) -> None:
            self._clear_gradients()
            logits = self._logits(name, self._features(few, precision))
            backward(OBJECTIVES[objective](logits, labels).mean(), precision)

        def gradient() -> Tensor:
            return self.parameterisation.pull_back(self._gradients(), parameters)

        return group.gather(faster_precision(run, gradient, self.device))[0]

    def _clear_gradients(self) -> None:
        if not _is_compiled(self.encoder):
            self.encoder.zero_grad(set_to_none=True)
            return
        # a first gradient would become .grad as it is, and CUDA graphs write the next micro-batch's
        # over it (github.com/pytorch/pytorch/issues/169545): so add to tensors of our own
        for parameter in filter(lambda each: each.requires_grad, self._parameters.values()):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.zero_()

    def _features(self, images: Tensor, precision: str) -> Tensor:
        """Features [N, D] in the encoder's dtype."""
        lowered = precision == "bfloat16"
        with (
            taken_by("the encoder", images),
            torch.autocast(self.device.type, torch.bfloat16, enabled=lowered),
        ):
            features = self.encoder(images)
        return features.to(_dtype(self.encoder)) if lowered else features

    def _logits(self, task_name: str, features: Tensor) -> Tensor:
        with taken_by(f"the head of task {task_name}", features):
            logits = widened(self.heads[task_name](features))
        check_logits(logits, len(features))
        return logits


def check_logits(logits: Tensor, images: int) -> None:
    """Raise InputError unless logits are [images, classes], at least two."""
    if logits.dim() != 2 or len(logits) != images or logits.shape[1] < 2:
        raise InputError(
            f"logits of shape {list(logits.shape)} for {images} images: need [{images}, classes] "
            "with at least 2 classes; give a head that classifies each image's features"
        )


def _is_compiled(encoder: nn.Module) -> bool:
    """Whether an encoder is compiled: by its own `compile`, or wrapped by torch.compile."""
    return encoder._compiled_call_impl is not None or hasattr(encoder, "_orig_mod")


def _dtype(encoder: nn.Module) -> torch.dtype:
    return next(encoder.parameters()).dtype


def misfits(
    encoder: nn.Module, task_vectors: TaskVectors, heads: Mapping[str, nn.Module]
) -> list[str]:
    """List the tensors in which encoder and task vectors differ, and the tasks without a head."""
    faults = _no_parts(encoder, task_vectors, heads)
    if faults:
        return faults
    ours, theirs = encoder.state_dict(), task_vectors.pretrained
    faults = [f"the encoder has no tensor {name}" for name in theirs.keys() - ours.keys()]
    faults += [f"the pretrained model has no tensor {n}" for n in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        faults += _misfits(name, ours[name], theirs[name])
    return faults + [f"task {n} has no head" for n in task_vectors.task_names if n not in heads]


def _no_parts(encoder: object, task_vectors: object, heads: object) -> list[str]:
    """List what is no encoder, no task vectors or no heads at all, a line each."""
    faults = []
    if not isinstance(encoder, nn.Module) or next(encoder.parameters(), None) is None:
        faults.append(f"the encoder is {type(encoder).__name__}: give a module with parameters")
    if not isinstance(task_vectors, TaskVectors):
        faults.append(f"the task vectors are {type(task_vectors).__name__}: give TaskVectors")
    if not isinstance(heads, Mapping):
        faults.append(f"the heads are {type(heads).__name__}: give a dict of modules by task name")
    else:
        faults += [
            f"head {name} is {type(head).__name__}: give a module"
            for name, head in heads.items()
            if not isinstance(head, nn.Module)
        ]
        faults += [
            f"head {name} has parameters without values: run it once on features before"
            for name, head in heads.items()
            if isinstance(head, nn.Module)
            and any(isinstance(each, UninitializedParameter) for each in head.parameters())
        ]
    return faults


def _misfits(name: str, ours: Tensor, theirs: Tensor) -> list[str]:
    """List what keeps one tensor of the encoder from taking the merged one."""
    if ours.shape != theirs.shape:
        return [
            f"tensor {name} is {list(ours.shape)} in the encoder, "
            f"{list(theirs.shape)} in the pretrained model"
        ]
    if ours.dtype != theirs.dtype:
        return [
            f"tensor {name} is {ours.dtype} in the encoder, {theirs.dtype} in the pretrained model"
        ]
    if ours.numel() and ours.data_ptr() == theirs.data_ptr():
        return [
            f"tensor {name} of the pretrained model is the encoder's own, which merging "
            "overwrites; clone the pretrained state dict"
        ]
    return []


def _displaced(
    encoder: nn.Module, task_vectors: TaskVectors, heads: Mapping[str, nn.Module]
) -> list[str]:
    """List the parts that are not on the device of the encoder's first parameter."""
    device, state = next(encoder.parameters()).device, encoder.state_dict()
    layers, pretrained = task_vectors.layers, task_vectors.pretrained
    vectors = {layers.device} if isinstance(layers, LazyLayers) else _devices(layers)
    places = {
        "the encoder's layers are": {state[name].device for name in layers if name in state},
        "the pretrained layers are": {pretrained[name].device for name in layers},
        "the task vectors are": vectors,
        **{f"head {name} is": _devices(head.state_dict()) for name, head in heads.items()},
    }
    return [
        f"{what} on {', '.join(sorted(map(str, found)))}, the encoder's first parameter on "
        f"{device}; move all to one device with .to(...)"
        for what, found in places.items()
        if found - {device}
    ]


def _devices(tensors: Mapping[str, Tensor]) -> set[torch.device]:
    return {tensor.device for tensor in tensors.values()}


def _chunks(
    counts: Mapping[str, int], micro_batch: int | None
) -> Iterator[tuple[int, list[tuple[str, slice]]]]:
    """Cut the tasks' concatenated images into micro-batches: (first image, [(task, its rows)])."""
    total = sum(counts.values())
    size = micro_batch or max(total, 1)
    for start in range(0, total, size):
        parts = rows_between(counts, start, start + size)
        yield start, [(name, rows) for name, rows in parts.items() if rows.start < rows.stop]
