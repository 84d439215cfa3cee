"""The floating-point operations of a model, as PyTorch counts them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adamerge_core.entropy import softmax_entropy


def operations(encoder: nn.Module, head: nn.Module, images: Tensor) -> tuple[int, int]:
    """Count those of the images' forward and backward pass, of products and convolutions.

    The backward pass goes to the parameters that require gradients, which keep them.
    """
    formulas = {torch.ops.aten.convolution_backward: _of_convolution_backward}
    # the counter knows the products that attention is made of, but not every fused kernel of it
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = softmax_entropy(head(encoder(images))).sum()
        with FlopCounterMode(display=False, custom_mapping=formulas) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def _of_convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *options: Any, **_: Any
) -> int:
    """Count, of shapes, as many for each gradient asked for as forward took.

    PyTorch's own formula takes the groups of a convolution for one, which makes a depthwise one as
    many times too dear as it has channels.
    """
    transposed, output_mask = options[4], options[7]
    places = prod((inputs if transposed else gradient)[2:])
    return 2 * inputs[0] * places * prod(weight) * sum(map(bool, output_mask[:2]))
