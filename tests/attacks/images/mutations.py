"""Small images of each format, changed at random: decoded or refused, in time and memory."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adamerge_core.vision.decoding import decode
from tests.attacks.cases import Case
from tests.attacks.images.files import decoded_or_refused, encoded, mutated, noise

COUNT = 40


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a text"
    return exif.tobytes()


def _animated(form: str) -> bytes:
    frames = [Image.fromarray(noise(n, 9, 7, 3)) for n in range(3)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def _files() -> dict[str, bytes]:
    rgb = Image.fromarray(noise(0, 9, 7, 3))
    sixteen = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000)
    return {
        "PNG": encoded(rgb),
        "PNG with EXIF": encoded(rgb, exif=_exif()),
        "PNG with a palette": encoded(rgb.convert("P"), transparency=3),
        "PNG of 16 bits": encoded(sixteen),
        "PNG of frames": _animated("PNG"),
        "JPEG": encoded(rgb, "JPEG"),
        "JPEG with EXIF": encoded(rgb, "JPEG", exif=_exif()),
        "JPEG, progressive": encoded(rgb, "JPEG", progressive=True),
        "JPEG of CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "JPEG of frames": _animated("MPO"),
        "WEBP": encoded(rgb, "WEBP"),
        "WEBP, lossless": encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        "WEBP of frames": _animated("WEBP"),
        "BMP": encoded(rgb, "BMP"),
        "BMP of a palette": encoded(rgb.convert("P"), "BMP"),
        "GIF": encoded(rgb, "GIF"),
        "GIF of frames": _animated("GIF"),
        "PPM": encoded(rgb, "PPM"),
        "PPM of numbers": b"P3 2 2 255\n1 2 3 4 5 6 7 8 9 10 11 12\n",
        "PGM of 16 bits": encoded(sixteen, "PPM"),
        "PBM": encoded(rgb.convert("1"), "PPM"),
        "TIFF": encoded(rgb, "TIFF"),
        "TIFF of LZW": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "TIFF of JPEG": encoded(Image.fromarray(noise(0, 16, 16, 3)), "TIFF", compression="jpeg"),
        "TIFF of deflate": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF of fax": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "TIFF with EXIF": encoded(rgb, "TIFF", exif=_exif()),
        "TIFF, big": encoded(rgb, "TIFF", big_tiff=True),
        "TIFF of pages": _animated("TIFF"),
    }


def cases() -> Iterator[Case]:
    for index, (name, content) in enumerate(_files().items()):
        yield Case(f"{COUNT} mutations of a {name}", partial(_mutate, content, index), "high", 60)


def _mutate(content: bytes, seed: int, folder: Path) -> int:
    decoded_or_refused(decode, content)
    for changed in mutated(content, seed, COUNT):
        decoded_or_refused(decode, changed)
    return COUNT
