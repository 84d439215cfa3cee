"""The diagonal Fisher information of a fine-tuned model, by which Fisher merging weighs."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from adamerge_core.batches import take, taken_by
from adamerge_core.checkpoints import StateDict
from adamerge_core.distributed import world
from adamerge_core.statistics.checks import check_counts
from adamerge_core.widening import widened


@torch.no_grad()
def fisher_diagonal(
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    batch_size: int = 8,
    probes: int = 4,
    seed: int = 0,
) -> StateDict:
    """Compute the diagonal Fisher information of each parameter of a model (arXiv 2111.09832).

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
    check_counts(images, {"batch_size": batch_size, "probes": probes})
    encoder.eval()
    head.eval()
    parameters = {n: p.detach() for n, p in encoder.named_parameters() if p.is_floating_point()}
    device = next(encoder.parameters()).device
    first = take(images, slice(0, 1)).to(device)
    with taken_by("the encoder with its head", first):
        logits = widened(head(encoder(first)))
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
        """Draw the frames [count, classes, rank] float64 of images from `first` on, in order."""
        # those of other ranks' images are drawn too, so that an image has its own whoever asks
        self._random.standard_normal((first - self._drawn, *self._shape))
        gaussian = torch.from_numpy(self._random.standard_normal((count, *self._shape)))
        self._drawn = first + count
        classes, rank = self._shape
        return torch.linalg.qr(gaussian).Q * (classes / rank) ** 0.5
