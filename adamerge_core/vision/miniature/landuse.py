"""`landuse`: drawn aerial patches under thin cloud. Stands beside EuroSAT."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from . import drawing
from .drawing import SIZE, Point

CLASS_NAMES = (
    "crop fields",
    "forest",
    "river",
    "lake",
    "highway",
    "residential buildings",
    "industrial buildings",
    "orchard",
    "desert",
    "snow",
)
TEMPLATES = ("a centered satellite photo of {}.", "an aerial photo of {}.")

GROUNDS = ((96, 122, 62), (126, 128, 78), (150, 132, 92), (74, 98, 56), (112, 108, 88))
CROPS = (
    (150, 160, 70),
    (92, 130, 60),
    (190, 170, 104),
    (132, 98, 66),
    (70, 104, 52),
    (176, 150, 84),
)
ROOFS = ((170, 90, 70), (140, 74, 62), (120, 120, 124), (184, 176, 168), (92, 84, 84))
HALLS = ((196, 198, 202), (150, 156, 164), (110, 116, 126), (168, 160, 150), (120, 140, 160))
WATER = ((42, 74, 104), (56, 92, 96), (34, 58, 80), (84, 104, 96), (30, 46, 62))


def _pick(
    rng: np.random.Generator, palette: tuple[drawing.Colour, ...], spread: float = 18
) -> drawing.Colour:
    return drawing.near(rng, palette[int(rng.integers(len(palette)))], spread)


def _ground(rng: np.random.Generator) -> Image.Image:
    """Meadow and soil with soft patches: what lies around rivers, lakes and roads."""
    field = drawing.fractal_noise(rng, (3, 7, 16))
    picture = drawing.as_picture(drawing.blend(_pick(rng, GROUNDS), _pick(rng, GROUNDS), field))
    if rng.random() < 0.35:
        picture = Image.blend(picture, _fields(rng), float(rng.uniform(0.3, 0.7)))
    if rng.random() < 0.35:
        _trees(rng, picture, int(rng.integers(5, 40)))
    return picture


def _trees(rng: np.random.Generator, picture: Image.Image, count: int) -> None:
    strokes = ImageDraw.Draw(picture)
    base = drawing.near(rng, (46, 78, 40), 22)
    places = rng.uniform(-2, SIZE + 2, (count, 2)).tolist()
    radii = rng.uniform(1.0, 3.4, count).tolist()
    shades = rng.uniform(0.65, 1.25, count).tolist()
    for (x, y), radius, shade in zip(places, radii, shades, strict=True):
        fill = tuple(int(min(255, channel * shade)) for channel in base)
        strokes.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _fields(rng: np.random.Generator) -> Image.Image:
    """Parcels in rows, each with its crop and furrows."""
    x, y = drawing.turned(float(rng.uniform(0, np.pi)))
    rows = np.floor(x * rng.uniform(1.2, 2.6) + 8).astype(int)
    shift = rng.uniform(0, 1, 32).astype(np.float32)
    columns = np.floor(y * rng.uniform(0.8, 2.2) + shift[rows] + 8).astype(int)
    parcel = (rows * 7 + columns * 3) % 16
    palette = np.array([_pick(rng, CROPS, 22) for _ in range(16)], np.float32)
    furrows = np.sin((x if rng.random() < 0.5 else y) * np.float32(rng.uniform(40, 70)))
    strength = rng.uniform(0, 16, 16).astype(np.float32)[parcel]
    return drawing.as_picture(palette[parcel] + (furrows * strength)[:, :, None])


def _forest(rng: np.random.Generator) -> Image.Image:
    base = drawing.near(rng, (44, 74, 42), 18)
    field = drawing.fractal_noise(rng, (4, 12, 28))
    picture = drawing.as_picture(drawing.blend(np.multiply(base, 0.5).tolist(), base, field))
    _trees(rng, picture, int(rng.integers(90, 170)))
    return picture


def _bank(rng: np.random.Generator, amount: drawing.Floats) -> Image.Image:
    """Water where `amount` is 1, ground where it is 0."""
    ripple = drawing.fractal_noise(rng, (5, 14)) * np.float32(20) - np.float32(10)
    water = np.asarray(_pick(rng, WATER, 12), np.float32) + ripple[:, :, None]
    ground = np.asarray(_ground(rng), np.float32)
    return drawing.as_picture(ground + (water - ground) * amount[:, :, None])


def _river(rng: np.random.Generator) -> Image.Image:
    x, y = drawing.turned(float(rng.uniform(0, np.pi)))
    bends = rng.uniform(0.05, 0.3) * np.sin(y * rng.uniform(1.5, 4.5) + rng.uniform(0, 6.3))
    bends = bends + rng.uniform(0, 0.1) * np.sin(y * rng.uniform(5, 9) + rng.uniform(0, 6.3))
    middle = np.abs(x - bends.astype(np.float32) - np.float32(rng.uniform(-0.4, 0.4)))
    half = float(rng.uniform(0.07, 0.26))
    return _bank(rng, drawing.soft_step(-middle, -half, 0.05))


def _lake(rng: np.random.Generator) -> Image.Image:
    x, y = drawing.turned(float(rng.uniform(0, np.pi)))
    far_x, far_y = rng.uniform(-0.45, 0.45, 2).astype(np.float32)
    width, height = rng.uniform(0.35, 0.9, 2).astype(np.float32)
    shore = drawing.smooth_noise(rng, 6) * np.float32(rng.uniform(0.3, 0.9))
    distance = np.hypot((x - far_x) / width, (y - far_y) / height) + shore
    return _bank(rng, drawing.soft_step(-distance, -1.25, 0.12))


def _highway(rng: np.random.Generator) -> Image.Image:
    picture = _ground(rng)
    strokes = ImageDraw.Draw(picture)
    asphalt = drawing.near(rng, (128, 126, 124), 34)
    start, end = rng.uniform(4, SIZE - 4, 2).tolist()
    bow = float(rng.uniform(-14, 14))
    steps = np.linspace(-0.1, 1.1, 14)
    across = start + (end - start) * steps + bow * np.sin(np.pi * steps)
    points = list(zip((steps * SIZE).tolist(), across.tolist(), strict=True))
    if rng.random() < 0.5:
        points = [(y, x) for x, y in points]
    width = int(rng.integers(4, 10))
    if rng.random() < 0.4:
        crossing = rng.uniform(0, SIZE, 4).tolist()
        strokes.line(crossing, fill=asphalt, width=max(3, width - 3))
    strokes.line(points, fill=asphalt, width=width, joint="curve")
    if rng.random() < 0.7:
        line = drawing.near(rng, (226, 222, 196), 25)
        for first, second in zip(points[::2], points[1::2], strict=True):
            strokes.line((*first, *second), fill=line, width=1)
    return picture


def _houses(rng: np.random.Generator) -> Image.Image:
    """Small houses of two roof halves along streets, among trees."""
    pitch_x, pitch_y = rng.uniform(11, 20, 2).tolist()
    ground = drawing.near(rng, (112, 120, 92), 26)
    patch = _built_up(rng, ground, (pitch_x, pitch_y), ROOFS, (0.45, 0.8))
    _trees(rng, patch, int(rng.integers(0, 30)))
    return patch


def _halls(rng: np.random.Generator) -> Image.Image:
    """Large flat halls on paved ground."""
    pitch_x, pitch_y = rng.uniform(20, 38, 2).tolist()
    ground = drawing.near(rng, (126, 122, 116), 26)
    patch = _built_up(rng, ground, (pitch_x, pitch_y), HALLS, (0.6, 0.9))
    _trees(rng, patch, int(rng.integers(0, 10)))
    return patch


def _built_up(
    rng: np.random.Generator,
    ground: drawing.Colour,
    pitch: Point,
    roofs: tuple[drawing.Colour, ...],
    share: tuple[float, float],
) -> Image.Image:
    """A turned grid of buildings, each with a shadow and a darker half.

    pitch: distance of the buildings, in pixels. share: range of the part of it that is built up.
    """
    side = SIZE * 3 // 2
    picture = Image.new("RGB", (side, side), ground)
    strokes = ImageDraw.Draw(picture)
    street = drawing.near(rng, (134, 132, 128), 22)
    columns, rows = int(side / pitch[0]) + 1, int(side / pitch[1]) + 1
    for top in np.arange(0, rows, int(rng.integers(2, 4))) * pitch[1] - 3:
        strokes.rectangle((0, float(top), side, float(top) + 4), fill=street)
    places = np.indices((columns, rows)).reshape(2, -1).T * pitch + (0, 4)
    places = places + rng.uniform(-1.5, 1.5, places.shape)
    sizes = rng.uniform(*share, places.shape) * (pitch[0], pitch[1] - 4)
    shades = np.array(roofs)[rng.integers(len(roofs), size=len(places))]
    shades = np.clip(shades + rng.uniform(-18, 18, shades.shape), 0, 255)
    built = rng.random(len(places)) > 0.12
    boxes = np.hstack((places, places + sizes))[built].tolist()
    lit, dark = shades[built].astype(int).tolist(), (shades[built] * 0.76).astype(int).tolist()
    for (left, top, right, bottom), roof, shaded in zip(boxes, lit, dark, strict=True):
        strokes.rectangle((left + 1, top + 1, right + 1, bottom + 1), fill=(52, 54, 46))
        strokes.rectangle((left, top, right, bottom), fill=tuple(roof))
        strokes.rectangle((left, top, right, (top + bottom) / 2), fill=tuple(shaded))
    turned = picture.rotate(float(rng.uniform(0, 360)), Image.Resampling.BILINEAR)
    edge = (side - SIZE) // 2
    return turned.crop((edge, edge, edge + SIZE, edge + SIZE))


def _orchard(rng: np.random.Generator) -> Image.Image:
    """Trees in rows on grass or soil."""
    picture = _ground(rng)
    strokes = ImageDraw.Draw(picture)
    angle = float(rng.uniform(0, np.pi))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    between, along = float(rng.uniform(7, 12)), float(rng.uniform(4.5, 8))
    reach = SIZE * 0.75
    rows, trees = np.arange(-reach, reach, between), np.arange(-reach, reach, along)
    places = np.stack(np.meshgrid(rows, trees), -1).reshape(-1, 2) @ turn + SIZE / 2
    places = places[np.all((places > -3) & (places < SIZE + 3), axis=1)]
    places = places + rng.uniform(-0.7, 0.7, places.shape)
    crown = drawing.near(rng, (58, 92, 48), 24)
    radius = min(between, along) * float(rng.uniform(0.28, 0.45))
    for x, y in places.tolist():
        strokes.ellipse((x - radius, y - radius, x + radius, y + radius), fill=crown)
    return picture


def _desert(rng: np.random.Generator) -> Image.Image:
    x, _ = drawing.turned(float(rng.uniform(0, np.pi)))
    bent = x + drawing.smooth_noise(rng, 4) * np.float32(rng.uniform(0.1, 0.6))
    dunes = np.sin(bent * np.float32(rng.uniform(6, 26))) * np.float32(rng.uniform(0.05, 0.5))
    field = np.clip(dunes + drawing.fractal_noise(rng, (3, 9, 24)), 0, 1)
    sand = drawing.near(rng, (198, 164, 112), 26)
    return drawing.as_picture(drawing.blend(np.multiply(sand, 0.72).tolist(), sand, field))


def _snow(rng: np.random.Generator) -> Image.Image:
    """Snow on ridges: bright slopes, blue shade, rock where the snow is thin."""
    x, _ = drawing.turned(float(rng.uniform(0, 2 * np.pi)))
    height = drawing.fractal_noise(rng, (4, 9, 20))
    slope = np.gradient(height, axis=int(rng.integers(2))).astype(np.float32)
    shade = np.clip(0.5 + slope * np.float32(rng.uniform(4, 9)) + 0.15 * x, 0, 1)
    snow = drawing.blend(drawing.near(rng, (150, 165, 190), 16), (244, 246, 250), shade)
    rock = drawing.soft_step(-height, -float(rng.uniform(0.05, 0.45)), 0.15)
    return drawing.as_picture(drawing.blend(snow, drawing.near(rng, (98, 92, 88), 22), rock))


PATCHES = (
    _fields,
    _forest,
    _river,
    _lake,
    _highway,
    _houses,
    _halls,
    _orchard,
    _desert,
    _snow,
)


def draw(rng: np.random.Generator, label: int) -> drawing.Pixels:
    """A patch of land of class `label` from above, with cloud and haze."""
    pixels = np.asarray(PATCHES[label](rng), np.float32)
    cloud = drawing.fractal_noise(rng, (3, 6, 12))
    cover = drawing.soft_step(cloud, float(rng.uniform(0.45, 1.3)), 0.7) * np.float32(0.85)
    haze = np.float32(rng.uniform(0, 0.35))
    pixels = drawing.blend(pixels, (232, 234, 238), np.maximum(cover, haze))
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return drawing.finish(rng, drawing.as_picture(pixels * tint), light=0.4, blur=1.4, noise=18)
