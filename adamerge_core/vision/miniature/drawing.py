"""What the miniature tasks share: noise fields, clutter, warps, light and camera faults.

Every function takes a numpy Generator and draws all its randomness from it, so that an image is a
function of its seed. Pictures are PIL images of 64 x 64 pixels unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64  # pixels, side of every image
CANVAS = 128  # pixels, side of the canvas on which an object is drawn before it is warped

Colour = tuple[int, int, int]
Point = tuple[float, float]
Floats = NDArray[np.floating[Any]]  # float32 wherever it is as large as an image
Pixels = NDArray[np.uint8]


def colour(rng: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    """Uniform colour with each channel in [low, high]."""
    red, green, blue = rng.integers(low, high + 1, 3).tolist()
    return red, green, blue


def near(rng: np.random.Generator, base: Sequence[float], spread: float = 20) -> Colour:
    """Colour within +-spread of `base` in each channel, in [0, 255]."""
    red, green, blue = np.clip(np.add(base, rng.uniform(-spread, spread, 3)), 0, 255).tolist()
    return int(red), int(green), int(blue)


def luminance(shade: Sequence[float]) -> float:
    """Rec. 601 luma of an RGB colour, in [0, 255]."""
    return 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2]


def contrasting(rng: np.random.Generator, other: Sequence[float], gap: float) -> Colour:
    """Colour whose luma differs from that of `other` by about `gap` (in [0, 120]) or more."""
    base = luminance(other)
    for _ in range(8):
        shade = colour(rng)
        if abs(luminance(shade) - base) >= gap:
            return shade
    return (20, 20, 20) if base > 127 else (235, 235, 235)


@cache
def grid() -> tuple[Floats, Floats]:
    """Pixel centres as (x, y), float32 [64, 64], each in [-1, 1]."""
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def turned(angle: float) -> tuple[Floats, Floats]:
    """The pixel grid turned by `angle` radians: (x, y), float32 [64, 64]."""
    x, y = grid()
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def smooth_noise(rng: np.random.Generator, cells: int) -> Floats:
    """Value noise: cells x cells random values in [0, 1], bicubic to float32 [64, 64]."""
    values = rng.random((cells, cells), dtype=np.float32)
    picture = Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def fractal_noise(rng: np.random.Generator, cells: Sequence[int]) -> Floats:
    """Sum of value noises with halving weights, scaled to [0, 1] over the image."""
    field = np.zeros((SIZE, SIZE), np.float32)
    for octave, count in enumerate(cells):
        field = field + smooth_noise(rng, count) * np.float32(0.5**octave)
    low, high = float(field.min()), float(field.max())
    return (field - low) / np.float32(max(high - low, 1e-6))


def soft_step(field: Floats, edge: float, width: float) -> Floats:
    """0 below `edge`, 1 above it, linear over `width`: a threshold without jagged edges."""
    return np.clip((field - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)


def blend(first: Sequence[float] | Floats, second: Sequence[float], amount: Floats) -> Floats:
    """Mix a colour (or image) with a colour: amount 0 gives `first`, 1 `second`; [64, 64, 3]."""
    start = np.asarray(first, np.float32)
    return start + (np.asarray(second, np.float32) - start) * amount[:, :, None]


def as_picture(pixels: Floats) -> Image.Image:
    """Float image [64, 64, 3] in [0, 255] (clipped) as a PIL picture."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def clutter(rng: np.random.Generator, shapes: int, blotches: float = 0.7) -> Image.Image:
    """Background: flat colour, blotches mixed in with a weight of up to `blotches` (in [0, 1]),
    then 0 to `shapes` random boxes, discs and strokes.
    """
    cells = int(rng.integers(2, 7))
    values = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    picture = Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    flat = Image.new("RGB", (SIZE, SIZE), colour(rng))
    picture = Image.blend(flat, picture, float(rng.uniform(0, blotches)))
    strokes = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, shapes + 1))):
        _random_shape(rng, strokes)
    return picture


def _random_shape(rng: np.random.Generator, strokes: ImageDraw.ImageDraw) -> None:
    left, top = rng.uniform(-10, SIZE, 2).tolist()
    width, height = rng.uniform(4, 34, 2).tolist()
    kind, shade = int(rng.integers(3)), colour(rng)
    if kind == 0:
        strokes.rectangle((left, top, left + width, top + height), fill=shade)
    elif kind == 1:
        strokes.ellipse((left, top, left + width, top + height), fill=shade)
    else:
        end = (left + width, top + float(rng.choice((-1, 1))) * height)
        strokes.line((left, top, *end), fill=shade, width=int(rng.integers(1, 4)))


def warp(
    rng: np.random.Generator,
    canvas: Image.Image,
    *,
    scale: tuple[float, float],
    rotation: float,
    shift: float,
    shear: float = 0.0,
    perspective: float = 0.0,
) -> Image.Image:
    """Look at a canvas (128 x 128) through a random camera; returns 64 x 64 of the same mode.

    scale: range of the factor by which the canvas is fitted to the image, 1 fills it.
    rotation: greatest angle in degrees. shift: greatest move of the centre, in pixels.
    shear, perspective: greatest shear and greatest change of depth over the canvas (0 to 0.5).
    """
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    factor = rng.uniform(*scale) * SIZE / CANVAS
    stretch = factor * rng.uniform(0.9, 1.1)
    slant = rng.uniform(-shear, shear)
    move_x, move_y = rng.uniform(-shift, shift, 2) + SIZE / 2
    depth_x, depth_y = rng.uniform(-perspective, perspective, 2) / CANVAS
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    size = np.array([[stretch, slant * factor, 0], [0, factor, 0], [depth_x, depth_y, 1]])
    to_image = np.array([[1, 0, move_x], [0, 1, move_y], [0, 0, 1]]) @ turn @ size
    to_canvas = np.linalg.inv(to_image)
    to_canvas = np.array([[1, 0, CANVAS / 2], [0, 1, CANVAS / 2], [0, 0, 1]]) @ to_canvas
    coefficients = (to_canvas / to_canvas[2, 2]).ravel()[:8].tolist()
    return canvas.transform(
        (SIZE, SIZE), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )


def occlude(rng: np.random.Generator, picture: Image.Image, probability: float) -> None:
    """With `probability`, draw one bar or disc over part of the picture, in place."""
    if rng.random() >= probability:
        return
    strokes = ImageDraw.Draw(picture)
    if rng.random() < 0.5:
        start, end = rng.uniform(0, SIZE, 2).tolist()
        width = int(rng.integers(3, 8))
        strokes.line((start, -2, end, SIZE + 2), fill=colour(rng), width=width)
    else:
        x, y = rng.uniform(8, SIZE - 8, 2).tolist()
        radius = float(rng.uniform(4, 9))
        strokes.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(rng))


def finish(
    rng: np.random.Generator,
    picture: Image.Image,
    *,
    light: float = 0.35,
    blur: float = 0.8,
    noise: float = 10.0,
) -> Pixels:
    """Uneven light, blur and sensor noise; returns uint8 [64, 64, 3].

    light: greatest change of gain, and of its slope across the image (0 to 1).
    blur: greatest radius in pixels, used on half of the images. noise: greatest standard
    deviation in grey levels.
    """
    radius = float(rng.uniform(-blur, blur))
    if radius > 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(picture, np.float32)
    across, _ = turned(float(rng.uniform(0, 2 * np.pi)))
    gain = np.float32(1 + rng.uniform(-light, light / 2))
    slope = np.float32(rng.uniform(0, light * 0.7))
    pixels = pixels * (gain * (1 + slope * across))[:, :, None]
    grain = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    pixels = pixels + grain * np.float32(rng.uniform(0, noise))
    return np.clip(pixels, 0, 255).astype(np.uint8)
