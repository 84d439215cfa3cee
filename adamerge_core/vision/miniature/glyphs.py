"""`letters` and `housenum`: glyphs of the fonts inside matplotlib's wheel.

`letters` is a capital on clutter; `housenum` a digit with neighbours that distract (SVHN).
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import drawing

LETTER_NAMES = tuple(f"letter {letter}" for letter in string.ascii_uppercase)
LETTER_TEMPLATES = ("a photo of the {}.", "a printed {}.")
NUMBER_NAMES = tuple(f"house number {digit}" for digit in range(10))
NUMBER_TEMPLATES = ("a photo of the {}.", "a street photo of {}.")

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
GLYPH = 96  # pixels, height of a capital on its mask


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this font ships inside the wheel of matplotlib")
    return ImageFont.truetype(str(path), size)


@cache
def glyph(name: str, text: str, height: int) -> Image.Image:
    """Mask ("L") of `text`, cut to its ink and scaled to `height` pixels."""
    font = _font(name, GLYPH)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    mask = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font)
    return mask.resize((max(1, round(mask.width * height / mask.height)), height))


def _any_font(rng: np.random.Generator) -> str:
    return FONTS[int(rng.integers(len(FONTS)))]


def _ink(rng: np.random.Generator, picture: Image.Image, gap: float) -> drawing.Colour:
    """A colour that can be read on this background."""
    around = np.asarray(picture.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
    return drawing.contrasting(rng, around, gap)


def draw_letter(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """Capital `label` (0 is A): any font, colour, place, slant and perspective, on clutter."""
    mask = glyph(_any_font(rng), string.ascii_uppercase[label], 84)
    canvas = Image.new("L", (drawing.CANVAS, drawing.CANVAS), 0)
    canvas.paste(mask, ((drawing.CANVAS - mask.width) // 2, (drawing.CANVAS - mask.height) // 2))
    mask = drawing.warp(
        rng, canvas, scale=(0.85, 1.2), rotation=8, shift=3, shear=0.12, perspective=0.15
    )
    picture = drawing.clutter(rng, 2, 0.35)
    picture.paste(_ink(rng, picture, 80), (0, 0), mask)
    drawing.occlude(rng, picture, 0.15)
    return drawing.finish(rng, picture, light=0.4, blur=1.0, noise=14)


def draw_number(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """Digit `label` in the middle of a number: its neighbours are cut by the image's edges."""
    name = _any_font(rng)
    canvas = Image.new("L", (drawing.CANVAS, drawing.CANVAS), 0)
    middle = glyph(name, str(label), 80)
    left = (drawing.CANVAS - middle.width) // 2
    top = (drawing.CANVAS - middle.height) // 2
    canvas.paste(middle, (left, top), middle)
    gap = int(rng.integers(4, 14))
    for side in (-1, 1):
        if rng.random() < 0.7:
            other = glyph(name, str(int(rng.integers(10))), 80)
            x = left - gap - other.width if side < 0 else left + middle.width + gap
            canvas.paste(other, (x, top + int(rng.integers(-4, 5))), other)
    mask = drawing.warp(
        rng, canvas, scale=(0.8, 1.15), rotation=8, shift=3, shear=0.2, perspective=0.2
    )
    picture = drawing.clutter(rng, 2, 0.45)
    picture.paste(_ink(rng, picture, 60), (0, 0), mask)
    drawing.occlude(rng, picture, 0.15)
    return drawing.finish(rng, picture, light=0.4, blur=1.2, noise=15)
