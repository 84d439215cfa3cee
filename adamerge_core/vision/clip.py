"""CLIP models built by open_clip, and their image encoders as the pipeline uses them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from types import MethodType

import open_clip
import torch
import torch.nn.functional as F  # noqa: N812
from open_clip.model import CLIP
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from adamerge_core.vision.architectures import (
    ARCHITECTURES,
    PIXEL_SCALING,
    PixelScaling,
    configuration,
)
from adamerge_core.vision.pixels import in_pixels, scale_pixels


def create_clip(architecture: str, device: str = "cpu") -> CLIP:
    """Make a CLIP with random weights, of this project's models or open_clip's.

    device: on `meta` its tensors have shapes and no values, which takes no time. Raises InputError
    for an unknown architecture.
    """
    config = configuration(architecture)
    with torch.device(device), _without_warning():
        if architecture in ARCHITECTURES:
            return CLIP(**config)
        made: CLIP = open_clip.create_model(
            architecture, load_weights=False, pretrained_text=False, device=device
        )
    return made


@contextmanager
def _without_warning() -> Iterator[None]:
    """Keep open_clip's warning of random weights off the log: they are asked for."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)


def image_encoder(clip: CLIP, pixels: PixelScaling) -> nn.Module:
    """Take the image tower of `clip`, made to take images uint8 [N, H, W, 3] to features float32
    [N, D]; `pixels` says how it scales theirs (see pixel_scaling).

    Names and tensors of its state dict are open_clip's (`clip.visual`). Always in evaluation mode:
    batch norms keep their pretrained running statistics, so that a model is its parameters and
    merging is well defined. Raises InputError when it is called on images of another dtype or
    shape.
    """
    tower = clip.visual.eval()
    fold_batch_norms(tower)
    tower.to(memory_format=torch.channels_last)
    mean, deviation = pixels
    tower.register_forward_pre_hook(partial(scale_pixels, mean=mean, deviation=deviation))
    return tower


def pixel_scaling(architecture: str, tag: str | None = None) -> PixelScaling:
    """Return the mean and the deviation that a model's pixels, 0 to 255, are scaled by.

    An open_clip model's are those that the weights of the tag were trained with; without a tag
    OpenAI's, which are those of most.
    """
    if architecture in PIXEL_SCALING:
        return PIXEL_SCALING[architecture]
    published = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    mean = published.get("mean", open_clip.OPENAI_DATASET_MEAN)
    deviation = published.get("std", open_clip.OPENAI_DATASET_STD)
    return in_pixels(mean, deviation)


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


def tokenizer(architecture: str) -> Callable[[list[str]], Tensor]:
    """Make what turns captions into int64 [N, context length] for the architecture's text tower.

    Raises InputError for an unknown architecture.
    """
    config = configuration(architecture)  # open_clip takes an unknown name for a common one
    if architecture in ARCHITECTURES:
        return open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    return open_clip.get_tokenizer(architecture)
