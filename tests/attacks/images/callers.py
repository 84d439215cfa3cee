"""What callers of the public functions may give by mistake."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adamerge_core.vision.archive import encode
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling, tokenizer
from adamerge_core.vision.corruptions import corrupt
from adamerge_core.vision.datasets import read_source
from adamerge_core.vision.decoding import decode
from adamerge_core.vision.heads import ZeroShotHead, zero_shot_weight
from adamerge_core.vision.images import open_images
from adamerge_core.vision.preparation import prepare_archive
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import fill, folder_images, noise, places, png, through

IMAGE = noise(0, 8, 8, 3)


def _corrupt(*changed: Any) -> Any:
    given = [IMAGE, "contrast", 3, 0]
    for index, value in enumerate(changed):
        given[index] = given[index] if value is None else value
    return corrupt(*given)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "decode a path": (lambda: decode("a.png", 8), "give the file's bytes"),  # type: ignore[arg-type]
    "decode an array": (lambda: decode(IMAGE, 8), "give the file's bytes"),  # type: ignore[arg-type]
    "decode nothing": (lambda: decode(b"", 8), "is empty"),
    "decode to size 0": (lambda: decode(png(0), 0), "image size 0: must be an integer from 1"),
    "decode to size -1": (lambda: decode(png(0), -1), "image size -1"),
    "decode to size 10^9": (lambda: decode(png(0), 10**9), "image size 1000000000"),
    "decode to size 8.0": (lambda: decode(png(0), 8.0), "image size 8.0"),  # type: ignore[arg-type]
    "decode to size True": (lambda: decode(png(0), True), "image size True"),
    "decode to size '8'": (lambda: decode(png(0), "8"), "image size '8'"),  # type: ignore[arg-type]
    "encode floats": (lambda: encode(IMAGE / 255), "dtype float64, but uint8"),
    "encode gray": (lambda: encode(IMAGE[..., 0]), "3 dimensions are needed"),
    "encode four channels": (lambda: encode(noise(0, 8, 8, 4)), "3 channels are needed"),
    "encode nothing": (lambda: encode(IMAGE[:0]), "holds no image"),
    "encode a list": (lambda: encode([[[0]]]), "is list, but a numpy array"),  # type: ignore[arg-type]
    "encode a tensor": (lambda: encode(torch.zeros(8, 8, 3)), "is Tensor, but a numpy"),  # type: ignore[arg-type]
    "corrupt floats": (lambda: _corrupt(IMAGE / 255), "dtype float64, but uint8"),
    "corrupt gray": (lambda: _corrupt(IMAGE[..., 0]), "3 dimensions are needed"),
    "corrupt a batch": (lambda: _corrupt(IMAGE[None]), "3 dimensions are needed"),
    "corrupt channels first": (lambda: _corrupt(IMAGE.transpose(2, 0, 1)), "3 channels"),
    "corrupt nothing": (lambda: _corrupt(IMAGE[:0]), "holds no image"),
    "corrupt 3 pixels": (lambda: _corrupt(IMAGE[:3, :3]), "a side must have at least 4"),
    "corrupt by an unknown one": (lambda: _corrupt(None, "fog"), "corruption 'fog': unknown"),
    "corrupt by severity 0": (lambda: _corrupt(None, None, 0), "severity 0: must be 1"),
    "corrupt by severity 2.5": (lambda: _corrupt(None, None, 2.5), "severity 2.5: must be 1"),
    "corrupt by severity True": (lambda: _corrupt(None, None, True), "severity True: must be 1"),
    "corrupt by severity '3'": (lambda: _corrupt(None, None, "3"), "severity '3': must be 1"),
    "corrupt by seed -1": (lambda: _corrupt(None, None, None, -1), "seed -1: must be an integer"),
    "corrupt by seed 2^32": (lambda: _corrupt(None, None, None, 2**32), "seed 4294967296"),
    "corrupt by seed 0.5": (lambda: _corrupt(None, None, None, 0.5), "seed 0.5"),
    "open images by a number": (lambda: open_images(3), "3"),  # type: ignore[arg-type]
    "open images by None": (lambda: open_images(None), "None"),  # type: ignore[arg-type]
    "open images by an empty path": (lambda: open_images(""), ""),
    "open images by a path with NUL": (lambda: open_images("a\0b"), "a"),
    "open images by a very long path": (lambda: open_images("a" * 10_000), "aaa"),
    "an unknown architecture": (lambda: create_clip("vit-99"), "'vit-99': unknown; known are"),
    "an architecture that is none": (lambda: create_clip(None), "None: unknown"),  # type: ignore[arg-type]
    "a tokenizer of an unknown one": (lambda: tokenizer("vit-99"), "'vit-99': unknown; known"),
    "a head of inf": (lambda: ZeroShotHead(torch.full((2, 3), -torch.inf)), "inf or NaN"),
    "a head of NaN": (lambda: ZeroShotHead(torch.full((2, 3), torch.nan)), "inf or NaN"),
    "a head of integers": (lambda: ZeroShotHead(torch.ones(2, 3, dtype=torch.int64)), "floats"),
    "a head of one dimension": (lambda: ZeroShotHead(torch.ones(3)), "floats [classes, D]"),
    "a head of no class": (lambda: ZeroShotHead(torch.ones(0, 3)), "floats [classes, D]"),
    "a source of no kind": (lambda: read_source("a", {}), "source: is missing"),
    "a source of an unknown kind": (lambda: read_source("a", {"source": "hubb"}), "unknown; known"),
    "a source of a list": (lambda: read_source("a", {"source": ["hub"]}), "unknown; known"),
}

HEADS: dict[str, tuple[Any, Any, str]] = {
    "no classes": ([], ["{}"], "classes = []"),
    "classes that are text": ("cat", ["{}"], "classes = 'cat'"),
    "a class that is a number": ([1], ["{}"], "is int; must be text"),
    "a class of two lines": (["a\nb"], ["{}"], "printable"),
    "no templates": (["cat"], [], "templates = []"),
    "templates that are text": (["cat"], "{}", "templates = '{}'"),
    "a template without a place": (["cat"], ["a"], "template 'a'"),
    "a template of two places": (["cat"], ["{} {}"], "template '{} {}'"),
    "a template that reaches in": (["cat"], ["{0.__class__}"], "template '{0.__class__}'"),
    "a template that is a number": (["cat"], [3], "template 3"),
}


def cases() -> Iterator[Case]:
    for name, (call, text) in WRONG.items():
        yield Case(f"callers: {name}", partial(_refused, call, text))
    for name, (classes, templates, text) in HEADS.items():
        yield Case(f"callers: a head of {name}", partial(_head, classes, templates, text))
    for value in (None, "ignore", True, ""):
        yield Case(f"callers: unreadable {value!r}", partial(_unreadable, value))
    for shape, dtype in (
        ((1, 3, 8, 8), torch.uint8),
        ((8, 8, 3), torch.uint8),
        ((1, 8, 8, 3), torch.float32),
        ((1, 8, 8, 4), torch.uint8),
    ):
        yield Case(f"callers: an encoder given {dtype} {shape}", partial(_encoder, shape, dtype))
    for count in (10**9, 2**63, 10**30):
        yield Case(f"callers: {count} miniatures", partial(_miniatures, count))
    yield Case("callers: a prepared array cannot be written to", _read_only)


def _refused(call: Callable[[], Any], text: str, folder: Path) -> None:
    refused(call, text)


def _head(classes: Any, templates: Any, text: str, folder: Path) -> None:
    refused(lambda: zero_shot_weight(None, None, classes, templates), text)  # type: ignore[arg-type]


def _unreadable(value: Any, folder: Path) -> None:
    through(folder_images(fill(folder / "pets")), folder)
    refused(
        lambda: prepare_archive(folder / "out" / "images.zip", 8, places(folder), value),
        f"unreadable = {value!r}: must be fail or skip",
    )


class _Tower(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


class _Clip:
    visual = _Tower()


def _encoder(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> None:
    encoder = image_encoder(_Clip(), pixel_scaling("efficientnet_lite0_clip"))  # type: ignore[arg-type]
    refused(lambda: encoder(torch.zeros(shape, dtype=dtype)), "must be torch.uint8 [N, H, W, 3]")


def _miniatures(count: int, folder: Path) -> None:
    entry = {"source": "miniature", "seed": 0, "train": count, "val": 1, "test": 1}
    refused(lambda: read_source("mnist", entry), f"train = {count}: must be")


def _read_only(folder: Path) -> None:
    through(folder_images(fill(folder / "pets")), folder)
    images = open_images(places(folder)("train")[0])
    try:
        images[0] = 0
    except ValueError:
        return
    raise FaultError(f"{np.shape(images)} was written to")
