"""`photos`: from which photograph does this crop come? Stands beside SUN397.

The photographs ship inside the wheels of scikit-image and scikit-learn. Each is cut into 24 cells;
a cell belongs to one split, and a crop never leaves its cell.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from . import drawing


class Photo(NamedTuple):
    """One photograph: class name, package, path in it, and box (left, top, right, bottom)."""

    name: str
    package: str
    path: str
    box: tuple[int, int, int, int]


PHOTOS = (
    Photo("astronaut", "skimage", "data/astronaut.png", (0, 0, 512, 512)),
    Photo("cat", "skimage", "data/chelsea.png", (0, 0, 451, 300)),
    Photo("cup of coffee", "skimage", "data/coffee.png", (0, 0, 600, 400)),
    Photo("ancient coins", "skimage", "data/coins.png", (0, 0, 384, 303)),
    Photo("brick wall", "skimage", "data/brick.png", (0, 0, 512, 512)),
    Photo("grass", "skimage", "data/grass.png", (0, 0, 512, 512)),
    Photo("gravel", "skimage", "data/gravel.png", (0, 0, 512, 512)),
    Photo("galaxies in deep space", "skimage", "data/hubble_deep_field.jpg", (0, 0, 1000, 872)),
    Photo("stained tissue", "skimage", "data/ihc.png", (0, 0, 512, 512)),
    # The square inside the round field of view: the corners around it are black.
    Photo("retina of an eye", "skimage", "data/retina.jpg", (200, 200, 1212, 1212)),
    Photo("rocket on a launch pad", "skimage", "data/rocket.jpg", (0, 0, 640, 427)),
    Photo("pagoda", "sklearn", "datasets/images/china.jpg", (0, 0, 640, 427)),
    Photo("dahlia flower", "sklearn", "datasets/images/flower.jpg", (0, 0, 640, 427)),
)
CLASS_NAMES = tuple(photo.name for photo in PHOTOS)
TEMPLATES = ("a photo of a {}.", "a cropped photo of a {}.", "a close-up photo of a {}.")

# Which split owns which cell of a photograph: interleaved, so that each split sees all its parts.
LAYOUT = ("TETPTE", "PTETVT", "ETVTET", "VTETPT")
LETTERS = {"pretrain": "P", "train": "T", "val": "V", "test": "E"}
MARGIN = 2  # pixels left out on each side of a cell
PLAIN = 9.0  # grey levels; a crop that deviates less (bare sky) is drawn again ...
TRIES = 4  # ... up to this many times in all
LARGEST_CELL = 110  # pixels; larger cells are shrunk once, when they are cut


def cells(photo: Photo, split: str) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) in pixels of the cells of `photo` that `split` owns."""
    left, top, right, bottom = photo.box
    xs = np.linspace(left, right, len(LAYOUT[0]) + 1).astype(int).tolist()
    ys = np.linspace(top, bottom, len(LAYOUT) + 1).astype(int).tolist()
    return [
        (xs[column] + MARGIN, ys[row] + MARGIN, xs[column + 1] - MARGIN, ys[row + 1] - MARGIN)
        for row, letters in enumerate(LAYOUT)
        for column, letter in enumerate(letters)
        if letter == LETTERS[split]
    ]


def photo_path(photo: Photo) -> Path:
    """Where the photograph lies in the installed wheel; FileNotFoundError if it does not."""
    spec = find_spec(photo.package)
    root = Path(spec.origin).parent if spec and spec.origin else Path(photo.package)
    path = root / photo.path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: this photograph ships inside the wheel of {photo.package}; "
            "install scikit-image and scikit-learn from their wheels"
        )
    return path


@cache
def _cut(label: int, split: str) -> tuple[Image.Image, ...]:
    """Cut before shrinking: a shrunk pixel then never mixes two splits."""
    photo = PHOTOS[label]
    with Image.open(photo_path(photo)) as opened:
        picture = opened.convert("RGB")
    cut = []
    for box in cells(photo, split):
        cell = picture.crop(box)
        factor = LARGEST_CELL / min(cell.size)
        if factor < 1:
            cell = cell.resize((round(cell.width * factor), round(cell.height * factor)))
        cut.append(cell)
    return tuple(cut)


def draw(rng: np.random.Generator, label: int, split: str) -> drawing.Pixels:
    """A turned, mirrored, recoloured crop of photograph `label`, from cells of `split` only."""
    picture = _crop(rng, label, split)
    for _ in range(TRIES - 1):
        if float(np.std(np.asarray(picture.convert("L")))) > PLAIN:
            break
        picture = _crop(rng, label, split)
    if rng.random() < 0.3:
        picture = picture.convert("L").convert("RGB")
    else:
        picture = ImageEnhance.Color(picture).enhance(float(rng.uniform(0.3, 1.3)))
    picture = ImageEnhance.Contrast(picture).enhance(float(rng.uniform(0.6, 1.4)))
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    picture = drawing.as_picture(np.asarray(picture, np.float32) * tint)
    return drawing.finish(rng, picture, light=0.4, blur=1.0, noise=12)


def _crop(rng: np.random.Generator, label: int, split: str) -> Image.Image:
    """A square of 0.5 to 0.9 of the cell's short side, turned by up to 15 degrees."""
    own = _cut(label, split)
    cell = own[int(rng.integers(len(own)))]
    angle = np.deg2rad(rng.uniform(-15, 15))
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    short = min(cell.size)
    reach = cosine + abs(sine)  # side of the box around a turned unit square
    side = min(short * float(rng.uniform(0.5, 0.9)), (short - 2) / reach)
    half = side * reach / 2
    x = float(rng.uniform(half, cell.width - half))
    y = float(rng.uniform(half, cell.height - half))
    step = side / drawing.SIZE
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    middle = drawing.SIZE / 2
    a, b, d, e = step * cosine * mirror, -step * sine, step * sine * mirror, step * cosine
    return cell.transform(
        (drawing.SIZE, drawing.SIZE),
        Image.Transform.AFFINE,
        (a, b, x - (a + b) * middle, d, e, y - (d + e) * middle),
        Image.Resampling.BILINEAR,
    )
