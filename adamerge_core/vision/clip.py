"""CLIP models built by open_clip, and their image encoders as the pipeline uses them."""

from functools import partial
from itertools import pairwise
from types import MethodType
from typing import Any

import open_clip
import torch
import torch.nn.functional as F  # noqa: N812
from open_clip.model import CLIP
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import ARCHITECTURES, PIXEL_SCALING


def create_clip(architecture: str) -> CLIP:
    """A CLIP with random weights. Raises InputError for an unknown architecture."""
    return CLIP(**_configuration(architecture))


def _configuration(architecture: str) -> dict[str, Any]:
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"model.architecture = {architecture!r}: unknown; known are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture]


def image_encoder(clip: CLIP, architecture: str) -> nn.Module:
    """The image tower of `clip`, taking images uint8 [N, H, W, 3] to features float32 [N, D].

    Names and tensors of its state dict are open_clip's (`clip.visual`). Always in evaluation mode:
    batch norms keep their pretrained running statistics, so that a model is its parameters and
    merging is well defined. Raises InputError for an unknown architecture, and when it is called on
    images of another dtype or shape.
    """
    _configuration(architecture)
    tower = clip.visual.eval()
    fold_batch_norms(tower)
    tower.to(memory_format=torch.channels_last)
    mean, divisor = PIXEL_SCALING[architecture]
    tower.register_forward_pre_hook(partial(_scale_pixels, mean=mean, divisor=divisor))
    return tower


def _scale_pixels(tower: nn.Module, inputs: tuple[Tensor], mean: float, divisor: float) -> Tensor:
    """uint8 [N, H, W, 3] on any device -> float32 [N, 3, H, W], channels last, on the tower's."""
    images = inputs[0]
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"images {images.dtype} {list(images.shape)}: must be torch.uint8 [N, H, W, 3]"
        )
    device = next(tower.parameters()).device
    return images.to(device).permute(0, 3, 1, 2).float().sub_(mean).div_(divisor)


def fold_batch_norms(model: nn.Module) -> None:
    """Make each convolution of `model` apply the batch norm after it through its own weights.

    In evaluation mode a batch norm is y = scale x + shift per channel, with
    scale = weight / sqrt(running_var + eps) and shift = bias - running_mean scale. Scaling the
    convolution's kernel instead of its output is the same function with the same gradients, and
    saves a pass over the activations in each direction. Parameters and their names stay.
    """
    for module in list(model.modules()):
        children = list(module.children())
        for convolution, norm in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                fold = partial(_normalised_convolution, norm=norm)
                setattr(convolution, "forward", MethodType(fold, convolution))  # noqa: B010
                setattr(norm, "forward", MethodType(_activation_only, norm))  # noqa: B010


def _normalised_convolution(convolution: nn.Conv2d, x: Tensor, norm: BatchNormAct2d) -> Tensor:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    kernel = convolution.weight * scale[:, None, None, None]
    shift = norm.bias - mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
    if isinstance(convolution, Conv2dSame):  # TensorFlow's padding, uneven at stride 2
        x = pad_same(x, list(convolution.kernel_size), list(stride), list(dilation))
        padding = (0, 0)
    return F.conv2d(x, kernel, shift, stride, padding, dilation, convolution.groups)


def _activation_only(norm: BatchNormAct2d, x: Tensor) -> Tensor:
    return norm.act(norm.drop(x))


def tokenizer(architecture: str) -> open_clip.SimpleTokenizer:
    """Captions -> int64 [N, context length] for the text tower of `architecture`.

    Raises InputError for an unknown architecture.
    """
    text = _configuration(architecture)["text_cfg"]
    return open_clip.SimpleTokenizer(context_length=text["context_length"])
