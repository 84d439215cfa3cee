"""`patterns`: drawn textures, named after classes of DTD, beside which the task stands.

Each texture is a field in [0, 1] over the image; the field mixes two colours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import drawing
from .drawing import Floats, soft_step

TEMPLATES = ("a photo of a {} texture.", "a photo of a {} pattern.")


def _axes(rng: np.random.Generator, bend: float = 0.12) -> tuple[Floats, Floats]:
    """Turned coordinates, bent by slow noise as cloth or a photographed wall is."""
    x, y = drawing.turned(float(rng.uniform(0, np.pi)))
    amount = np.float32(rng.uniform(0, bend))
    return x + drawing.smooth_noise(rng, 4) * amount, y + drawing.smooth_noise(rng, 4) * amount


def _period(rng: np.random.Generator, low: float, high: float) -> np.float32:
    """Repeats over half of the image, drawn from [low, high]."""
    return np.float32(rng.uniform(low, high))


def _wave(field: Floats) -> Floats:
    """Triangle wave of period 1 in [0, 1]."""
    return np.abs(field - np.floor(field) - np.float32(0.5)) * 2


def _striped(rng: np.random.Generator) -> Floats:
    x, _ = _axes(rng)
    count = _period(rng, 2, 7)
    return soft_step(_wave(x * count), float(rng.uniform(0.3, 0.7)), 0.1 * float(count))


def _wavy(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    count = _period(rng, 2, 5)
    swing = np.float32(rng.uniform(0.08, 0.22)) * np.sin(y * _period(rng, 4, 9))
    return soft_step(_wave((x + swing) * count), float(rng.uniform(0.3, 0.7)), 0.12 * float(count))


def _zigzagged(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    count = _period(rng, 2, 5)
    swing = _wave(y * _period(rng, 1.2, 3.2)) * np.float32(rng.uniform(0.25, 0.5))
    return soft_step(
        _wave((x + swing) * count), float(rng.uniform(0.35, 0.65)), 0.12 * float(count)
    )


def _dotted(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    count = _period(rng, 1.8, 4.5)
    rows = y * count
    shift = np.float32(0.5 if rng.random() < 0.5 else 0.0) * (np.floor(rows) % 2)
    columns = x * count + shift
    distance = np.hypot(rows - np.floor(rows) - 0.5, columns - np.floor(columns) - 0.5)
    return soft_step(-distance, -float(rng.uniform(0.18, 0.36)), 0.06 * float(count))


def _checkered(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    count = _period(rng, 1.2, 3.5)
    product = np.sin(np.pi * x * count) * np.sin(np.pi * y * count)
    return soft_step(product, 0.0, 0.12 * float(count))


def _grid(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    count = _period(rng, 1.5, 4)
    edge = 1 - float(rng.uniform(0.12, 0.3))
    lines = np.maximum(_wave(x * count), _wave(y * count * np.float32(rng.uniform(0.7, 1.4))))
    return soft_step(lines, edge, 0.12 * float(count))


def _honeycombed(rng: np.random.Generator) -> Floats:
    """Distance to the border of the nearest cell of a hexagonal lattice."""
    x, y = _axes(rng)
    count = _period(rng, 1.6, 3.6)
    x, y = x * count, y * count * np.float32(3**-0.5)
    first = _hexagon(x - np.floor(x) - np.float32(0.5), y - np.floor(y) - np.float32(0.5))
    second = _hexagon(x - np.round(x), y - np.round(y))
    return soft_step(np.minimum(first, second), 0.5 - float(rng.uniform(0.05, 0.11)), 0.12)


def _hexagon(x: Floats, y: Floats) -> Floats:
    """Hexagonal distance from the centre: 0.5 at the border of a cell."""
    across, along = np.abs(x), np.abs(y) * np.float32(np.sqrt(3))
    return np.maximum(across, across * np.float32(0.5) + along * np.float32(np.sqrt(3) / 2))


def _spiralled(rng: np.random.Generator) -> Floats:
    x, y = _axes(rng)
    far_x, far_y = rng.uniform(-0.4, 0.4, 2).astype(np.float32)
    x, y = x - far_x, y - far_y
    arms = float(rng.choice((-2, -1, 1, 2)))
    angle = np.arctan2(y, x) * np.float32(arms / (2 * np.pi))
    count = _period(rng, 2.2, 4.5)
    field = _wave(np.hypot(x, y) * count + angle + np.float32(rng.random()))
    return soft_step(field, float(rng.uniform(0.35, 0.65)), 0.12 * float(count))


def _nearest(rng: np.random.Generator, seeds: int) -> tuple[Floats, Floats]:
    """Distances to the nearest and the second nearest of random seeds, float32 [64, 64] each."""
    x, y = drawing.grid()
    places = rng.uniform(-1.1, 1.1, (seeds, 2)).astype(np.float32)
    first = np.full(x.shape, 9, np.float32)
    second = first
    for seed_x, seed_y in places:
        distance = (x - seed_x) ** 2 + (y - seed_y) ** 2
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return np.sqrt(first), np.sqrt(second)


def _cracked(rng: np.random.Generator) -> Floats:
    """Thin jagged borders between the cells of random seeds."""
    first, second = _nearest(rng, int(rng.integers(6, 22)))
    rough = (drawing.smooth_noise(rng, 24) - np.float32(0.5)) * np.float32(0.05)
    return soft_step(-(second - first + rough), -float(rng.uniform(0.03, 0.07)), 0.05)


def _bubbly(rng: np.random.Generator) -> Floats:
    """Shaded balls of random size."""
    x, y = drawing.grid()
    field = np.full(x.shape, rng.uniform(0, 0.25), np.float32)
    for _ in range(int(rng.integers(10, 26))):
        far_x, far_y, radius = rng.uniform((-1.1, -1.1, 0.08), (1.1, 1.1, 0.34)).tolist()
        distance = np.hypot(x - np.float32(far_x), y - np.float32(far_y)) / np.float32(radius)
        glint = np.hypot(x - far_x + 0.3 * radius, y - far_y + 0.3 * radius) / radius
        ball = np.clip(0.35 + 0.6 * distance**3 + 0.7 * (glint < 0.25), 0, 1)
        field = np.where(distance < 1, ball, field).astype(np.float32)
    return field


def _marbled(rng: np.random.Generator) -> Floats:
    """Veins: a sine whose phase is bent by strong turbulence."""
    x, _ = drawing.turned(float(rng.uniform(0, np.pi)))
    turbulence = drawing.fractal_noise(rng, (4, 8, 16, 32))
    phase = x * _period(rng, 1, 4) + turbulence * _period(rng, 5, 10)
    return np.abs(np.sin(phase)) ** np.float32(rng.uniform(0.4, 1.5))


def _woven(rng: np.random.Generator) -> Floats:
    """Bands of two tones that pass over and under each other."""
    x, y = _axes(rng)
    count = _period(rng, 1.5, 3.5)
    x, y = x * count, y * count
    over = (np.floor(x) + np.floor(y)) % 2 > 0
    edge = float(rng.uniform(0.15, 0.35))
    width = 0.25 * float(count)
    weft, warp_band = np.sin(np.pi * (y % 1)), np.sin(np.pi * (x % 1))
    weft_mask, warp_mask = soft_step(weft, edge, width), soft_step(warp_band, edge, width)
    weft, warp_band = weft * np.float32(rng.uniform(0.45, 0.7)), np.float32(0.4) + warp_band * 0.6
    top, top_mask = np.where(over, weft, warp_band), np.where(over, weft_mask, warp_mask)
    below = np.where(over, warp_band * warp_mask, weft * weft_mask) * np.float32(0.8)
    return top * top_mask + below * (1 - top_mask)


TEXTURES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "striped": _striped,
    "wavy": _wavy,
    "zigzagged": _zigzagged,
    "dotted": _dotted,
    "checkered": _checkered,
    "grid": _grid,
    "honeycombed": _honeycombed,
    "spiralled": _spiralled,
    "cracked": _cracked,
    "bubbly": _bubbly,
    "marbled": _marbled,
    "woven": _woven,
}
CLASS_NAMES = tuple(TEXTURES)
_FIELDS = tuple(TEXTURES.values())


def draw(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """Texture `label` in two colours that fade over the image, with grain and stains."""
    field = _FIELDS[label](rng)
    first = drawing.colour(rng)
    second = drawing.contrasting(rng, first, 25)
    pixels = drawing.blend(first, second, field)
    stains = drawing.fractal_noise(rng, (3, 8, 20)) * np.float32(rng.uniform(0, 0.65))
    pixels = drawing.blend(pixels, drawing.colour(rng), stains)
    picture = drawing.as_picture(pixels)
    drawing.occlude(rng, picture, 0.15)
    return drawing.finish(rng, picture, light=0.5, blur=1.5, noise=34)
