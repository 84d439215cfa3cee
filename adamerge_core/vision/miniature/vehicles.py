"""`vehicles`: drawn side views of 14 kinds of vehicle over clutter. Stands beside Cars.

A vehicle is a list of parts in a 100 x 100 frame, y downwards; the parts are drawn in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from . import drawing

TEMPLATES = ("a photo of a {}.", "a side view of a {}.")


class Part(NamedTuple):
    """kind: polygon, disc (x, y, radius), oval (box) or line; role: which paint it gets."""

    kind: str
    role: str
    numbers: tuple[float, ...]
    width: float = 0.0  # of a line or a ring


def _polygon(role: str, *numbers: float) -> Part:
    return Part("polygon", role, numbers)


def _line(role: str, width: float, *numbers: float) -> Part:
    return Part("line", role, numbers, width)


def _oval(role: str, *box: float) -> Part:
    return Part("oval", role, box)


def _wheels(radius: float, y: float, *xs: float) -> tuple[Part, ...]:
    """Tyres with hubs."""
    tyres = tuple(Part("disc", "dark", (x, y, radius)) for x in xs)
    return tyres + tuple(Part("disc", "metal", (x, y, radius * 0.45)) for x in xs)


def _windows(y: float, height: float, width: float, *xs: float) -> tuple[Part, ...]:
    return tuple(
        _polygon("glass", x, y, x + width, y, x + width, y + height, x, y + height) for x in xs
    )


VEHICLES: dict[str, tuple[Part, ...]] = {
    "sedan car": (
        _polygon("body", 4, 66, 5, 55, 22, 51, 34, 38, 62, 38, 76, 51, 94, 55, 96, 66),
        _polygon("glass", 27, 51, 36, 41, 47, 41, 47, 51),
        _polygon("glass", 50, 51, 50, 41, 60, 41, 70, 51),
        *_wheels(9, 67, 22, 76),
    ),
    "sports car": (
        _polygon("body", 2, 66, 4, 52, 20, 53, 42, 44, 58, 45, 72, 54, 98, 61, 98, 67),
        _polygon("trim", 1, 46, 13, 46, 13, 49, 1, 50),
        _polygon("glass", 36, 53, 44, 47, 57, 48, 66, 54),
        *_wheels(9, 66, 19, 78),
    ),
    "pickup truck": (
        _polygon("body", 3, 68, 3, 49, 44, 49, 47, 34, 66, 34, 75, 49, 95, 52, 97, 68),
        _polygon("dark", 6, 49, 42, 49, 42, 53, 6, 53),
        _polygon("glass", 49, 48, 51, 37, 64, 37, 71, 48),
        *_wheels(10, 68, 21, 78),
    ),
    "van": (
        _polygon("body", 5, 70, 5, 28, 66, 28, 84, 48, 95, 52, 96, 70),
        _polygon("glass", 64, 47, 64, 32, 68, 33, 79, 47),
        _line("trim", 2, 8, 57, 92, 57),
        *_wheels(9, 70, 22, 77),
    ),
    "bus": (
        _polygon("body", 3, 72, 3, 26, 95, 26, 97, 50, 97, 72),
        *_windows(32, 15, 10, 7, 20, 33, 46, 59),
        _polygon("glass", 82, 32, 94, 32, 95, 66, 82, 66),
        _line("trim", 4, 4, 56, 80, 56),
        *_wheels(8, 73, 20, 74),
    ),
    "semi-trailer truck": (
        _polygon("trim", 2, 64, 2, 22, 66, 22, 66, 64),
        _polygon("dark", 2, 64, 96, 64, 96, 69, 2, 69),
        _polygon("body", 70, 66, 70, 32, 86, 32, 95, 47, 97, 66),
        _polygon("glass", 76, 46, 76, 36, 85, 36, 91, 46),
        *_wheels(7, 71, 11, 25, 62, 76, 90),
    ),
    "tractor": (
        _polygon("body", 46, 60, 46, 44, 88, 46, 90, 62, 50, 64),
        _line("trim", 4, 24, 22, 52, 22),
        _line("body", 4, 28, 22, 25, 52),
        _line("body", 3, 49, 22, 50, 46),
        _polygon("glass", 30, 25, 46, 25, 47, 44, 29, 46),
        _line("dark", 4, 74, 46, 74, 26),
        *_wheels(20, 61, 27),
        *_wheels(11, 70, 80),
    ),
    "motorcycle": (
        _line("metal", 5, 22, 66, 44, 64, 56, 62, 70, 38, 82, 66),
        _polygon("body", 40, 48, 60, 40, 68, 46, 58, 56, 42, 56),
        _polygon("dark", 14, 44, 38, 46, 44, 52, 22, 52),
        _polygon("metal", 40, 56, 60, 56, 56, 70, 42, 70),
        _line("dark", 4, 64, 32, 76, 34),
        Part("ring", "dark", (22, 67, 15), 5),
        Part("ring", "dark", (82, 67, 15), 5),
    ),
    "bicycle": (
        Part("ring", "dark", (22, 64, 18), 2.5),
        Part("ring", "dark", (78, 64, 18), 2.5),
        _line("body", 3.5, 22, 64, 38, 40, 66, 40, 46, 64, 22, 64),
        _line("body", 3.5, 46, 64, 36, 34),
        _line("body", 3.5, 78, 64, 65, 32),
        _line("dark", 4, 29, 33, 42, 33),
        _line("dark", 3.5, 60, 30, 72, 28),
    ),
    "steam locomotive": (
        _polygon("body", 30, 60, 30, 40, 88, 40, 91, 50, 88, 60),
        _polygon("trim", 4, 64, 4, 24, 32, 24, 32, 64),
        _polygon("glass", 10, 30, 24, 30, 24, 44, 10, 44),
        _polygon("dark", 74, 40, 72, 20, 86, 20, 83, 40),
        _oval("metal", 48, 32, 60, 48),
        _polygon("dark", 4, 62, 98, 60, 98, 72, 88, 66, 4, 68),
        *_wheels(9, 70, 16, 36, 56),
        *_wheels(6, 73, 74, 87),
        _line("metal", 3, 16, 70, 56, 70),
    ),
    "airplane": (
        _polygon("trim", 10, 46, 3, 22, 14, 22, 28, 44),
        _polygon("body", 6, 46, 80, 41, 92, 45, 97, 51, 90, 56, 30, 57, 12, 52),
        _polygon("metal", 44, 52, 62, 52, 34, 80, 24, 80),
        _polygon("trim", 46, 43, 60, 42, 46, 27, 39, 27),
        *_windows(46, 3, 3, 30, 38, 46, 54, 62, 70),
        _polygon("glass", 84, 44, 90, 46, 92, 49, 84, 49),
    ),
    "helicopter": (
        _polygon("body", 4, 40, 10, 40, 46, 44, 46, 52, 8, 46),
        _oval("body", 38, 36, 88, 66),
        _polygon("glass", 66, 40, 76, 40, 85, 48, 86, 55, 66, 55),
        _line("dark", 3, 62, 37, 62, 27),
        _line("dark", 3, 22, 27, 99, 25),
        _line("metal", 2.5, 4, 32, 9, 52),
        _line("metal", 3, 40, 76, 84, 76),
        _line("metal", 2.5, 52, 64, 50, 76),
        _line("metal", 2.5, 72, 64, 74, 76),
    ),
    "sailboat": (
        _polygon("trim", 52, 8, 52, 66, 88, 66, 74, 40),
        _polygon("glass", 47, 14, 47, 66, 16, 66),
        _line("dark", 3, 50, 6, 50, 74),
        _polygon("body", 10, 71, 92, 71, 80, 85, 22, 85),
    ),
    "cargo ship": (
        _polygon("body", 2, 58, 74, 60, 99, 52, 90, 78, 8, 78),
        _polygon("metal", 8, 58, 8, 28, 24, 28, 24, 58),
        _polygon("glass", 10, 33, 22, 33, 22, 38, 10, 38),
        _polygon("dark", 12, 28, 13, 17, 20, 17, 20, 28),
        _polygon("trim", 28, 58, 28, 44, 48, 44, 48, 59),
        _polygon("glass", 50, 59, 50, 48, 70, 48, 70, 59),
    ),
}
CLASS_NAMES = tuple(VEHICLES)
_PARTS = tuple(VEHICLES.values())


def _paints(rng: np.random.Generator) -> dict[str, drawing.Colour]:
    body = drawing.colour(rng, 20, 240)
    return {
        "body": body,
        "trim": drawing.contrasting(rng, body, 25),
        "glass": drawing.near(rng, (150, 180, 200), 50),
        "dark": drawing.near(rng, (36, 36, 40), 26),
        "metal": drawing.near(rng, (160, 160, 164), 45),
    }


def _draw_part(
    strokes: ImageDraw.ImageDraw, part: Part, numbers: list[float], fill: drawing.Colour
) -> None:
    """numbers: those of the part, jittered, in pixels of the canvas."""
    width = max(1, round(part.width * drawing.CANVAS / 100))
    if part.kind == "polygon":
        strokes.polygon(numbers, fill=fill)
    elif part.kind == "line":
        strokes.line(numbers, fill=fill, width=width, joint="curve")
    elif part.kind == "oval":
        strokes.ellipse(numbers, fill=fill)
    else:
        x, y, radius = numbers
        box = (x - radius, y - radius, x + radius, y + radius)
        if part.kind == "ring":
            strokes.ellipse(box, outline=fill, width=width)
        else:
            strokes.ellipse(box, fill=fill)


def draw(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """Vehicle `label`, facing either way, its outline jittered, on clutter."""
    canvas = Image.new("RGBA", (drawing.CANVAS, drawing.CANVAS))
    strokes = ImageDraw.Draw(canvas)
    paints = _paints(rng)
    for part in _PARTS[label]:
        jitter = rng.uniform(-1.6, 1.6, len(part.numbers))
        numbers = ((np.asarray(part.numbers) + jitter) * (drawing.CANVAS / 100)).tolist()
        _draw_part(strokes, part, numbers, paints[part.role])
    if rng.random() < 0.5:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas = drawing.warp(
        rng, canvas, scale=(0.7, 1.05), rotation=12, shift=7, shear=0.2, perspective=0.3
    )
    picture = drawing.clutter(rng, 5, 0.5)
    picture.paste(canvas, (0, 0), canvas)
    drawing.occlude(rng, picture, 0.25)
    return drawing.finish(rng, picture, light=0.5, blur=1.0, noise=16)
