"""The field's data sets with a few images a class, in the formats of their copies on the hub.

What is not as published is the numbers of images: the catalogue of a copied project is told of
them.
"""

import io
import itertools
import json
import re
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
from hub_server import Hub
from PIL import Image
from pyarrow import parquet

from adamerge_core.vision.datasets.published import PublishedDataset

PER_CLASS = {"train": 4, "test": 2}
LEAST = {"train": 40, "test": 32}
"""Images of a split, by class and altogether."""

_GREY = ("mnist", "fashion_mnist", "kmnist", "emnist_letters", "fer2013")
_PNG = (*_GREY, "cifar10", "cifar100", "svhn", "pcam", "stl10", "gtsrb", "rendered_sst2")
"""The others are photographs, as JPEG."""


def count(classes: int, split: str) -> int:
    """Tell how many images a split of a data set of so many classes has here."""
    return max(classes * PER_CLASS[split], LEAST[split])


def tell_counts(catalogue: Path) -> None:
    """Write these numbers of images into the files of a catalogue."""
    for path in catalogue.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        classes = len(
            re.findall(r"^- ", text.split("\nclasses:\n")[1].split("\nvariants:")[0], re.M)
        )
        numbers = {split: count(classes, split) for split in PER_CLASS}
        text, found = re.subn(
            r"^images: .*$", f"images: {json.dumps(numbers)}", text, flags=re.MULTILINE
        )
        assert found == 1, path
        text = re.sub(
            r"^published_test_images: .*$",
            f"published_test_images: {numbers['test']}",
            text,
            flags=re.MULTILINE,
        )
        path.write_text(text, encoding="utf-8")


def hub_of(
    published: PublishedDataset,
    counts: Mapping[str, int] | None = None,
    size: tuple[int, int] = (40, 32),
) -> Hub:
    """Make the hub of a data set: a file a split, of the catalogue's names and columns.

    counts: of images by split; those of `count` where none are given. size: width and height of
    the images, of which no more than 500 are different.
    """
    assert published.hub is not None
    files = {"README.md": b"# a data set"}
    for split, patterns in published.hub.files.items():
        images = (counts or {}).get(split) or count(len(published.classes), split)
        labels = np.resize(np.arange(len(published.classes)), images) + published.labels.bases[-1]
        name = patterns[0].replace("*", "0" if patterns[0].endswith(".tar") else "00000-of-00001")
        make = _tar if published.hub.format == "webdataset" else _table
        files[name] = make(published, labels, split, size)
    return Hub(published.hub.id, files)


def _table(
    published: PublishedDataset, labels: np.ndarray, split: str, size: tuple[int, int]
) -> bytes:
    assert published.hub is not None
    label, column = published.hub.label, published.hub.image
    images = [
        {"bytes": content, "path": None}
        for content in _encoded(published.name, len(labels), split, size)
    ]
    features: dict[str, Any] = {column: {"_type": "Image"}}
    stored: Sequence[Any] = labels.tolist()
    if published.name == "pcam":
        stored = [bool(each) for each in stored]
        features[label] = {"dtype": "bool", "_type": "Value"}
    else:
        features[label] = {"names": list(published.classes), "_type": "ClassLabel"}
    table = pa.table({column: images, label: stored}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, row_group_size=100, use_dictionary=False)
    return buffer.getvalue()


def _tar(
    published: PublishedDataset, labels: np.ndarray, split: str, size: tuple[int, int]
) -> bytes:
    assert published.hub is not None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row, content in enumerate(_encoded(published.name, len(labels), split, size)):
            for suffix, data in (
                (published.hub.label, str(labels[row]).encode()),
                (published.hub.image, content),
            ):
                member = tarfile.TarInfo(f"s{row:07d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _encoded(name: str, images: int, split: str, size: tuple[int, int]) -> list[bytes]:
    """Encode random images: coarse fields of colour under some noise."""
    rng = np.random.default_rng(crc32(f"{name} {split}".encode()))
    width, height = size
    found = []
    for _ in range(min(images, _DIFFERENT)):
        coarse = Image.fromarray(rng.integers(30, 226, (4, 4, 3), dtype=np.uint8))
        noise = rng.integers(-6, 7, (height, width, 3))
        image = Image.fromarray((np.asarray(coarse.resize(size)) + noise).astype(np.uint8))
        buffer = io.BytesIO()
        image.convert("L" if name in _GREY else "RGB").save(
            buffer, "PNG" if name in _PNG else "JPEG"
        )
        found.append(buffer.getvalue())
    return list(itertools.islice(itertools.cycle(found), images))


_DIFFERENT = 500


def write_emnist_digits(root: Path) -> None:
    """Write the digits of EMNIST as torchvision keeps them below its root."""
    raw = root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in PER_CLASS:
        labels = np.resize(np.arange(10, dtype=np.uint8), count(10, split))
        images = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        stem = raw / f"emnist-digits-{split}"
        stem.with_name(f"{stem.name}-images-idx3-ubyte").write_bytes(idx(images))
        stem.with_name(f"{stem.name}-labels-idx1-ubyte").write_bytes(idx(labels))


def idx(array: np.ndarray) -> bytes:
    """Encode an array of bytes as MNIST's files have it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
