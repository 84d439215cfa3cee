"""How the pixels of images become what a model takes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import PixelScaling


def in_pixels(mean: Sequence[float], deviation: Sequence[float]) -> PixelScaling:
    """Turn the mean and deviation of red, green and blue in 0 to 1 into those of 0 to 255."""
    red, green, blue = ((255 * m, 255 * d) for m, d in zip(mean, deviation, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def scale_pixels(
    tower: nn.Module, inputs: tuple[Tensor], mean: Sequence[float], deviation: Sequence[float]
) -> Tensor:
    """Scale images uint8 [N, H, W, 3] on any device to float32 [N, 3, H, W], channels last, on the
    tower's: a forward pre-hook. Raises InputError for another dtype or shape.
    """
    images = inputs[0]
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"images {images.dtype} {list(images.shape)}: must be torch.uint8 [N, H, W, 3]"
        )
    device = next(tower.parameters()).device
    pixels = images.to(device).permute(0, 3, 1, 2).float()
    for channel in range(3):
        pixels[:, channel].sub_(mean[channel]).div_(deviation[channel])
    return pixels
