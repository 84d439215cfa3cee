"""Arrays of prepared images and labels that are not what they seem."""

import io
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.images import LabeledImages, open_images, open_labels, save_array
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import mutated, noise, refused_in_print


class Runs:
    """A pickle of it writes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("ran", "w"))


def saved(array: np.ndarray, *, pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickle)
    return buffer.getvalue()


def headed(header: bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy file with a header of one's own."""
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header) % 2**16)
    return b"\x93NUMPY" + bytes(version) + length + header + data


def shaped(
    shape: str, descr: str = "'|u1'", order: str = "False", data: bytes = bytes(60)
) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"
    return headed(text.encode(), data)


def _objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros((2**22, 4, 4, 3), np.uint8))
    return buffer.getvalue()


IMAGES = noise(0, 5, 4, 4, 3)

WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "a pickle that runs code": (lambda: saved(_objects([Runs()]), pickle=True), "object"),
    "a pickle in place of an array": (
        lambda: b"\x80\x04cposix\nsystem\n(S'touch ran'\ntR.",
        "whole",
    ),
    "a field of objects": (lambda: shaped("(5,4,4,3)", "[('a', '|O')]"), "uint8 are needed"),
    "floats": (lambda: saved(IMAGES.astype(np.float32)), "float32 of shape [5, 4, 4, 3]"),
    "booleans": (lambda: saved(IMAGES > 100), "bool of shape [5, 4, 4, 3]"),
    "signed bytes": (lambda: saved(IMAGES.astype(np.int8)), "int8 of shape"),
    "complex numbers": (lambda: saved(IMAGES.astype(complex)), "complex128 of shape"),
    "text": (lambda: saved(IMAGES.astype("U3")), "<U3 of shape"),
    "times": (lambda: saved(IMAGES.astype("M8[s]")), "datetime64[s] of shape"),
    "16 bits": (lambda: saved(IMAGES.astype(np.uint16)), "uint16 of shape"),
    "three dimensions": (lambda: saved(IMAGES[0]), "4 dimensions of uint8 are needed"),
    "five dimensions": (lambda: saved(IMAGES[None]), "4 dimensions of uint8 are needed"),
    "no dimension": (lambda: saved(np.uint8(3)), "4 dimensions of uint8 are needed"),  # type: ignore[arg-type]
    "one channel": (lambda: saved(IMAGES[..., :1]), "3 channels are needed"),
    "four channels": (lambda: saved(noise(0, 5, 4, 4, 4)), "3 channels are needed"),
    "channels first": (lambda: saved(IMAGES.transpose(0, 3, 1, 2).copy()), "3 channels are"),
    "no image": (lambda: saved(IMAGES[:0]), "which holds no image"),
    "images of no height": (lambda: saved(IMAGES[:, :0]), "which holds no image"),
    "columns first": (lambda: saved(np.asfortranarray(IMAGES)), "by columns"),
    "a huge shape": (lambda: shaped("(10**9,4,4,3)"), "not a whole .npy file"),
    "a shape beyond 2^64": (lambda: shaped(f"({2**62},{2**62},4,3)"), "not a whole .npy file"),
    "a shape whose size wraps to 60": (lambda: shaped(f"({2**64 // 4 + 5},4,1,3)"), "not a whole"),
    "a negative shape": (lambda: shaped("(-5,4,-1,3)"), "not a whole .npy file"),
    "a shape of floats": (lambda: shaped("(5.0,4,1,3)"), "not a whole .npy file"),
    "a shape of truths": (lambda: shaped("(5,4,True,3)"), ""),
    "a shape of text": (lambda: shaped("'5,4,1,3'"), "not a whole .npy file"),
    "a shape of 10,000 dimensions": (lambda: shaped("(" + "1," * 10_000 + ")"), "not a whole"),
    "a header that runs code": (lambda: shaped("__import__('os').system('touch ran')"), "not a wh"),
    "a header of 3,000 brackets": (lambda: shaped("(" * 3000 + ")" * 3000), "not a whole .npy"),
    "a header of a huge power": (lambda: shaped("(9**9**9,4,1,3)"), "not a whole .npy file"),
    "a header of 60,000 bytes": (lambda: headed(b" " * 60_000), "not a whole .npy file"),
    "a header of nothing": (lambda: headed(b""), "not a whole .npy file"),
    "a header of bytes": (lambda: headed(bytes(range(256))), "not a whole .npy file"),
    "a header with more keys": (lambda: shaped("(5,4,1,3), 'x': 1"), "not a whole .npy file"),
    "a header without a shape": (lambda: headed(b"{'descr': '|u1'}"), "not a whole .npy file"),
    "an unknown dtype": (lambda: shaped("(5,4,1,3)", "'|x9'"), "not a whole .npy file"),
    "a dtype of 2 GB": (lambda: shaped("(5,4,1,3)", "'|V2147483647'"), "uint8 are needed"),
    "version 2": (lambda: b"\x93NUMPY\2\0" + saved(IMAGES)[8:], "version (2, 0) of the format"),
    "version 9": (lambda: b"\x93NUMPY\x09\x09" + saved(IMAGES)[8:], "not a whole .npy file"),
    "bytes missing": (lambda: saved(IMAGES)[:-1], "its header says 240 bytes"),
    "bytes too many": (lambda: saved(IMAGES) + b"\0", "it holds 241"),
    "another array after it": (lambda: saved(IMAGES) * 2, "not a whole .npy file"),
    "an empty file": (lambda: b"", "not a whole .npy file"),
    "a cut header": (lambda: saved(IMAGES)[:50], "not a whole .npy file"),
    "the magic alone": (lambda: b"\x93NUMPY", "not a whole .npy file"),
    "an .npz of 200 MB": (_npz, "not a whole .npy file"),
    "an image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "not a whole .npy file"),
}

LABELS: dict[str, tuple[np.ndarray, str]] = {
    "floats": (np.arange(5.0), "float64 of shape [5]"),
    "32 bits": (np.arange(5, dtype=np.int32), "int32 of shape [5]"),
    "the high byte first": (np.arange(5, dtype=">i8"), ">i8 of shape [5]"),
    "below 0": (np.array([0, -1]), "label -1"),
    "none": (np.arange(0), "no label"),
    "two dimensions": (np.zeros((5, 1), np.int64), "1 dimensions of int64 are needed"),
    "one more than images": (np.arange(6), "5 images and 6 in"),
    "one fewer": (np.arange(4), "5 images and 4 in"),
}


def cases() -> Iterator[Case]:
    for name, (make, text) in WRONG.items():
        yield Case(f"images: {name}", partial(_open, make, text), "high", seconds=20)
    for name, (labels, text) in LABELS.items():
        yield Case(f"labels: {name}", partial(_labels, labels, text))
    yield Case("images of uint16 cannot be opened as five dimensions", _five)
    yield Case("an array of objects is not saved", _save_objects)
    yield Case("a list is not saved", _save_list)
    yield Case("arrays by paths given as text", _as_text)
    yield Case("a file that is replaced while it is open", _replaced)
    for seed in range(4):
        yield Case(f"images: 100 mutations, seed {seed}", partial(_mutations, seed), "high", 60)


def _open(make: Callable[[], bytes], text: str, folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(make())
    error = refused_in_print(lambda: open_images(path), str(path), text, "make it again")
    if Path("ran").exists():
        raise FaultError("it ran code")
    if "\n" in str(error):
        raise FaultError(f"tells more than one fault: {error}")


def _labels(labels: np.ndarray, text: str, folder: Path) -> None:
    (folder / "images.npy").write_bytes(saved(IMAGES))
    (folder / "labels.npy").write_bytes(saved(labels))
    refused(
        lambda: LabeledImages.open(folder / "images.npy", folder / "labels.npy"), text, "labels.npy"
    )


def _five(folder: Path) -> None:
    (folder / "a.npy").write_bytes(saved(IMAGES[None]))
    if open_images(folder / "a.npy", 5).shape != (1, 5, 4, 4, 3):
        raise FaultError("another shape")
    refused(lambda: open_images(folder / "a.npy", 4), "4 dimensions")


def _save_objects(folder: Path) -> None:
    refused(lambda: save_array(folder / "a.npy", _objects([Runs()])), "array of numbers")
    if any(folder.iterdir()):
        raise FaultError("wrote a file")


def _save_list(folder: Path) -> None:
    refused(lambda: save_array(folder / "a.npy", [1, 2]), "array of numbers")  # type: ignore[arg-type]


def _as_text(folder: Path) -> None:
    save_array(str(folder / "a.npy"), IMAGES)
    save_array(str(folder / "b.npy"), np.arange(5))
    opened = LabeledImages.open(str(folder / "a.npy"), str(folder / "b.npy"))  # type: ignore[arg-type]
    if not np.array_equal(opened.images, IMAGES) or open_labels(str(folder / "b.npy")).size != 5:
        raise FaultError("other content")


def _replaced(folder: Path) -> None:
    path = folder / "a.npy"
    save_array(path, IMAGES)
    opened = open_images(path)
    save_array(path, 255 - IMAGES)
    if not np.array_equal(opened, IMAGES):
        raise FaultError("what is open has changed")


def _mutations(seed: int, folder: Path) -> int:
    for content in mutated(saved(IMAGES), seed, 100):
        (folder / "a.npy").write_bytes(content)
        try:
            opened = open_images(folder / "a.npy")
        except InputError:
            continue
        if opened.dtype != np.uint8 or opened.ndim != 4 or int(opened.sum()) < 0:
            raise FaultError(f"opened as {opened.dtype} {opened.shape}")
    return 100
