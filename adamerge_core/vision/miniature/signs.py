"""`signs`: 22 drawn traffic signs, each a plate and a symbol. Stands beside GTSRB.

Coordinates are in a 100 x 100 frame, y downwards; a symbol is a list of strokes in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from . import drawing
from .glyphs import glyph

TEMPLATES = ('a zoomed in photo of a "{}" traffic sign.', "a close up photo of a {} traffic sign.")

PAINTS: dict[str, drawing.Colour] = {
    "red": (196, 24, 34),
    "blue": (24, 78, 168),
    "white": (240, 240, 236),
    "yellow": (246, 200, 30),
    "black": (24, 24, 24),
    "green": (20, 140, 80),
}
LETTERING = ("DejaVuSans-Bold", "cmss10", "DejaVuSans", "DejaVuSansMono-Bold")


class Stroke(NamedTuple):
    """kind: polygon, line, disc (x, y, radius), ring, arc (box, start, end) or text."""

    kind: str
    paint: str
    numbers: tuple[float, ...]
    width: float = 0.0
    text: str = ""


class Sign(NamedTuple):
    """plate: circle, triangle, inverted triangle, octagon, diamond or square."""

    plate: str
    face: str
    border: str
    symbol: tuple[Stroke, ...] = ()


def _line(paint: str, width: float, *numbers: float) -> Stroke:
    return Stroke("line", paint, numbers, width)


def _polygon(paint: str, *numbers: float) -> Stroke:
    return Stroke("polygon", paint, numbers)


def _text(paint: str, text: str, height: float, y: float = 50) -> Stroke:
    """`text` of this height, its middle at (50, y)."""
    return Stroke("text", paint, (50, y, height), 0, text)


def _disc(paint: str, x: float, y: float, radius: float) -> Stroke:
    return Stroke("disc", paint, (x, y, radius))


def _arc(paint: str, width: float, *numbers: float) -> Stroke:
    return Stroke("arc", paint, numbers, width)


def _car(paint: str, x: float) -> tuple[Stroke, ...]:
    """A car from behind, its middle at x."""
    roof = _polygon(paint, x - 8, 50, x - 5, 40, x + 5, 40, x + 8, 50)
    return roof, _polygon(paint, x - 10, 50, x + 10, 50, x + 10, 62, x - 10, 62)


SIGNS: dict[str, Sign] = {
    "stop": Sign("octagon", "red", "white", (_text("white", "STOP", 24),)),
    "yield": Sign("inverted triangle", "white", "red"),
    "no entry": Sign(
        "circle", "red", "white", (_polygon("white", 20, 42, 80, 42, 80, 58, 20, 58),)
    ),
    "closed to all vehicles": Sign("circle", "white", "red"),
    "speed limit 30": Sign("circle", "white", "red", (_text("black", "30", 37),)),
    "speed limit 50": Sign("circle", "white", "red", (_text("black", "50", 37),)),
    "speed limit 80": Sign("circle", "white", "red", (_text("black", "80", 37),)),
    "no overtaking": Sign("circle", "white", "red", (*_car("red", 37), *_car("black", 63))),
    "no parking": Sign("circle", "blue", "red", (_line("red", 9, 22, 22, 78, 78),)),
    "no stopping": Sign(
        "circle", "blue", "red", (_line("red", 9, 22, 22, 78, 78), _line("red", 9, 78, 22, 22, 78))
    ),
    "turn left": Sign(
        "circle",
        "blue",
        "white",
        (_line("white", 9, 78, 50, 36, 50), _polygon("white", 18, 50, 40, 32, 40, 68)),
    ),
    "turn right": Sign(
        "circle",
        "blue",
        "white",
        (_line("white", 9, 22, 50, 64, 50), _polygon("white", 82, 50, 60, 32, 60, 68)),
    ),
    "ahead only": Sign(
        "circle",
        "blue",
        "white",
        (_line("white", 9, 50, 80, 50, 36), _polygon("white", 50, 17, 32, 40, 68, 40)),
    ),
    "roundabout": Sign(
        "circle",
        "blue",
        "white",
        (
            _arc("white", 7, 27, 27, 73, 73, 100, 180),
            _arc("white", 7, 27, 27, 73, 73, 220, 300),
            _arc("white", 7, 27, 27, 73, 73, 340, 60),
            _polygon("white", 27, 36, 18, 52, 38, 52),
            _polygon("white", 68, 24, 74, 42, 56, 34),
            _polygon("white", 52, 78, 68, 66, 70, 84),
        ),
    ),
    "dangerous bend": Sign(
        "triangle",
        "white",
        "red",
        (
            _line("black", 8, 50, 80, 50, 66, 40, 58, 42, 48),
            _polygon("black", 49, 34, 35, 46, 51, 53),
        ),
    ),
    "crossroads": Sign(
        "triangle",
        "white",
        "red",
        (_line("black", 8, 36, 46, 64, 80), _line("black", 8, 64, 46, 36, 80)),
    ),
    "traffic signals": Sign(
        "triangle",
        "white",
        "red",
        (
            _polygon("black", 41, 40, 59, 40, 59, 83, 41, 83),
            _disc("red", 50, 48, 6),
            _disc("yellow", 50, 61.5, 6),
            _disc("green", 50, 75, 6),
        ),
    ),
    "general caution": Sign(
        "triangle",
        "white",
        "red",
        (_polygon("black", 44, 38, 56, 38, 53, 66, 47, 66), _disc("black", 50, 76, 5)),
    ),
    "pedestrian crossing": Sign(
        "square",
        "blue",
        "blue",
        (
            _polygon("white", 50, 14, 88, 84, 12, 84),
            _disc("black", 50, 38, 5),
            _line("black", 7, 50, 44, 50, 60, 40, 78),
            _line("black", 6, 50, 60, 60, 78),
            _line("black", 4, 38, 54, 50, 47, 61, 55),
        ),
    ),
    "priority road": Sign(
        "diamond", "white", "black", (_polygon("yellow", 50, 20, 80, 50, 50, 80, 20, 50),)
    ),
    "parking": Sign("square", "blue", "white", (_text("white", "P", 60),)),
    "dead end": Sign(
        "square",
        "blue",
        "white",
        (
            _line("white", 13, 50, 86, 50, 36),
            _polygon("red", 26, 22, 74, 22, 74, 38, 26, 38),
        ),
    ),
}
CLASS_NAMES = tuple(SIGNS)
_ALL = tuple(SIGNS.values())

PLATES: dict[str, tuple[float, ...]] = {
    "triangle": (50, 4, 98, 90, 2, 90),
    "inverted triangle": (2, 10, 98, 10, 50, 96),
    "octagon": (31, 4, 69, 4, 96, 31, 96, 69, 69, 96, 31, 96, 4, 69, 4, 31),
    "diamond": (50, 2, 98, 50, 50, 98, 2, 50),
    "square": (6, 6, 94, 6, 94, 94, 6, 94),
}
# A border is the plate in its colour under the face, shrunk about the plate's centre.
CENTRES = {"triangle": (50.0, 61.0), "inverted triangle": (50.0, 39.0)}
FACE_SHARE = {"triangle": 0.72, "inverted triangle": 0.66, "circle": 0.79, "square": 0.93}


def _pixels(numbers: tuple[float, ...] | list[float]) -> list[float]:
    return [number * drawing.CANVAS / 100 for number in numbers]


def _plate(strokes: ImageDraw.ImageDraw, plate: str, share: float, fill: drawing.Colour) -> None:
    """The outline of a plate, scaled by `share` about its centre."""
    x, y = CENTRES.get(plate, (50.0, 50.0))
    if plate == "circle":
        half = 46 * share
        strokes.ellipse(_pixels((x - half, y - half, x + half, y + half)), fill=fill)
        return
    outline = PLATES[plate]
    moved = [
        (x if place % 2 == 0 else y) * (1 - share) + number * share
        for place, number in enumerate(outline)
    ]
    strokes.polygon(_pixels(moved), fill=fill)


def _draw_stroke(
    canvas: Image.Image,
    strokes: ImageDraw.ImageDraw,
    stroke: Stroke,
    fill: drawing.Colour,
    font: str,
) -> None:
    numbers = _pixels(stroke.numbers)
    width = max(1, round(stroke.width * drawing.CANVAS / 100))
    if stroke.kind == "polygon":
        strokes.polygon(numbers, fill=fill)
    elif stroke.kind == "line":
        strokes.line(numbers, fill=fill, width=width, joint="curve")
    elif stroke.kind == "arc":
        start, end = stroke.numbers[4:6]
        strokes.arc(numbers[:4], start, end, fill=fill, width=width)
    elif stroke.kind == "disc":
        x, y, radius = numbers
        strokes.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        mask = glyph(font, stroke.text, round(numbers[2]))
        canvas.paste(
            fill, (round(numbers[0]) - mask.width // 2, round(numbers[1]) - mask.height // 2), mask
        )


def _face(label: int, font: str, paints: dict[str, drawing.Colour]) -> Image.Image:
    """The sign as RGBA 128 x 128, seen from the front."""
    sign = _ALL[label]
    canvas = Image.new("RGBA", (drawing.CANVAS, drawing.CANVAS))
    strokes = ImageDraw.Draw(canvas)
    _plate(strokes, sign.plate, 1.0, paints[sign.border])
    _plate(strokes, sign.plate, FACE_SHARE.get(sign.plate, 0.92), paints[sign.face])
    for stroke in sign.symbol:
        _draw_stroke(canvas, strokes, stroke, paints[stroke.paint], font)
    return canvas


def draw(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """Sign `label` on its post over clutter, faded, tilted, partly covered, in any light."""
    fade = float(rng.uniform(0.0, 0.4))
    paints = {
        name: drawing.near(rng, np.add(np.multiply(paint, 1 - fade), 150 * fade).tolist(), 22)
        for name, paint in PAINTS.items()
    }
    canvas = _face(label, LETTERING[int(rng.integers(len(LETTERING)))], paints)
    canvas = drawing.warp(
        rng, canvas, scale=(0.65, 1.0), rotation=10, shift=6, shear=0.15, perspective=0.4
    )
    picture = drawing.clutter(rng, 6)
    picture.paste(canvas, (0, 0), canvas)
    drawing.occlude(rng, picture, 0.2)
    return drawing.finish(rng, picture, light=0.6, blur=1.1, noise=14)
