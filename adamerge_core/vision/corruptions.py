"""The paper's seven image corruptions, after Hendrycks and Dietterich (arXiv 1903.12261).

Severities 1 to 5 as in their ImageNet-C code; lengths in pixels, which they give for images of 224,
are scaled to the image's size. Nothing here imports torch.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.images import pixels_fault

_SMALLEST = 4  # pixels a side of an image

_PUBLISHED_SIZE = 224  # pixels a side of the images that the published lengths are for


def _albumentations() -> Any:
    """albumentations without its torch part, which it imports if it can and which takes seconds."""
    if "albumentations" not in sys.modules and "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            import albumentations
        finally:
            del sys.modules["torch"]
        return albumentations
    import albumentations

    return albumentations


def _motion_blur(severity: int, size: int) -> Any:
    # ImageNet-C gives a Gaussian's radius and sigma along the motion, a line kernel has a length:
    # these, in shares of the side, grow like its sigmas 3, 5, 8, 12, 15 at 224 pixels
    length = max(3, round(size * (0.05, 0.08, 0.11, 0.15, 0.2)[severity - 1]) | 1)
    return _albumentations().MotionBlur(blur_limit=(length, length), p=1)


def _impulse_noise(severity: int, size: int) -> Any:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    return _albumentations().SaltAndPepper(amount=(share, share), p=1)


def _gaussian_noise(severity: int, size: int) -> Any:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return _albumentations().GaussNoise(std_range=(deviation, deviation), p=1)


def _pixelate(severity: int, size: int) -> Any:
    scale = int(size * (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]) / size
    albumentations = _albumentations()
    import cv2  # after albumentations, of which it is a part

    # means down and blocks up, as theirs; picking single pixels would shift the image
    means_and_blocks = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST_EXACT}
    return albumentations.Downscale(
        scale_range=(scale, scale), interpolation_pair=means_and_blocks, p=1
    )


def _spatter(severity: int, size: int) -> Any:
    mean, deviation, sigma, threshold, intensity, mode = (
        (0.65, 0.3, 4, 0.69, 0.6, "rain"),
        (0.65, 0.3, 3, 0.68, 0.6, "rain"),
        (0.65, 0.3, 2, 0.68, 0.5, "rain"),
        (0.65, 0.3, 1, 0.65, 1.0, "mud"),
        (0.67, 0.4, 1, 0.65, 1.0, "mud"),
    )[severity - 1]
    width = max(0.5, sigma * size / _PUBLISHED_SIZE)
    return _albumentations().Spatter(
        mean=(mean, mean),
        std=(deviation, deviation),
        gauss_sigma=(width, width),
        cutout_threshold=(threshold, threshold),
        intensity=(intensity, intensity),
        mode=mode,
        p=1,
    )


def _contrast(severity: int, size: int) -> Any:
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    return _albumentations().ColorJitter(
        brightness=(1, 1), contrast=(factor, factor), saturation=(1, 1), hue=(0, 0), p=1
    )


def _jpeg_compression(severity: int, size: int) -> Any:
    quality = (25, 18, 15, 10, 7)[severity - 1]
    return _albumentations().ImageCompression(quality_range=(quality, quality), p=1)


CORRUPTIONS: dict[str, Callable[[int, int], Any]] = {
    "motion_blur": _motion_blur,
    "impulse_noise": _impulse_noise,
    "gaussian_noise": _gaussian_noise,
    "pixelate": _pixelate,
    "spatter": _spatter,
    "contrast": _contrast,
    "jpeg_compression": _jpeg_compression,
}
"""By name: (severity, image size) -> an albumentations transform."""


def corrupt(image: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """One corrupted image: uint8 [H, W, 3] -> uint8 [H, W, 3].

    severity: 1 to 5; seed: 0 to 2^32 - 1. The same arguments give the same pixels. Raises
    InputError for others, for an unknown corruption, and for an image of another dtype or shape or
    with a side shorter than 4 pixels, which the corruptions have no room in.
    """
    faults = []
    fault = pixels_fault(image, 3)
    if fault:
        faults.append(f"image: {fault}")
    elif min(image.shape[:2]) < _SMALLEST:
        faults.append(
            f"image: {image.shape[1]} x {image.shape[0]} pixels; a side must have at least "
            f"{_SMALLEST}"
        )
    if corruption not in CORRUPTIONS:
        faults.append(f"corruption {corruption!r}: unknown; known are {', '.join(CORRUPTIONS)}")
    if not _is_integer(severity) or not 1 <= severity <= 5:
        faults.append(f"severity {severity!r}: must be 1, 2, 3, 4 or 5")
    if not _is_integer(seed) or not 0 <= seed < 2**32:
        faults.append(f"seed {seed!r}: must be an integer of 0 to {2**32 - 1}")
    if faults:
        raise InputError.listing("corrupt", faults)
    transform = _transform(corruption, severity, min(image.shape[:2]))
    transform.set_random_seed(seed)
    return transform(image=image)["image"]


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@cache
def _transform(corruption: str, severity: int, size: int) -> Any:
    """One Compose a kind: making one takes longer than an image, and each call sets its seed."""
    return _albumentations().Compose([CORRUPTIONS[corruption](severity, size)])
