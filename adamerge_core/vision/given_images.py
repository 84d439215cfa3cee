"""Images as a caller gives them: arrays, bytes of files, base64 text, paths. No torch here."""

import base64
import binascii
import os
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.user_files import read_file
from adamerge_core.vision.decoding import MAX_FILE_BYTES, decode, fit_pixels
from adamerge_core.vision.names import printable

_KINDS = "an array uint8 [H, W, 3], the bytes of an image file, their base64 text"


def image_pixels(image: Any, size: int, *, paths: bool) -> np.ndarray:
    """Decode one image to uint8 [size, size, 3], as the pipeline prepares those of a data set.

    image: an array uint8 [H, W, 3] (or nested lists, as JSON has it), bytes of a file, its base64
    text, or a path. Text that names a file is a path. paths: whether files are read at all; a
    server must not read them for whoever asks. Raises InputError, which says why.
    """
    if isinstance(image, np.ndarray):
        return fit_pixels(image, size)
    if isinstance(image, list):
        return fit_pixels(_as_array(image), size)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), size).pixels
    if paths and (isinstance(image, os.PathLike) or _names_file(image)):
        return decode(read_file(Path(image), "the file", MAX_FILE_BYTES), size).pixels
    if isinstance(image, str):
        return decode(_from_base64(image, paths=paths), size).pixels
    raise InputError(f"is {type(image).__name__}: give {_KINDS}{' or a path' * paths}")


def _names_file(image: Any) -> bool:
    return isinstance(image, str) and os.path.isfile(image)


def _from_base64(text: str, *, paths: bool) -> bytes:
    """Decode base64 text, or what follows the comma of a `data:` address."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        shown = printable(text[:60]) + "…" * (len(text) > 60)
        if paths:
            raise InputError(f"text {shown!r}: names no file, and is no base64") from error
        raise InputError(
            f"text {shown!r}: is no base64 of an image file; paths are not read here"
        ) from error


def _as_array(rows: list[Any]) -> np.ndarray:
    try:
        values = np.asarray(rows)
    except ValueError as error:  # rows of several lengths
        raise InputError("is lists of several lengths: must be [H][W][3] of 0 to 255") from error
    if values.dtype.kind not in "iu" or values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise InputError(f"is lists of {values.dtype}: must be [H][W][3] of integers 0 to 255")
    return values.astype(np.uint8)
