"""Small files that want much: memory, time, or both."""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adamerge_core.vision.decoding import FIRST_FRAME, MAX_FILE_BYTES, MAX_PIXELS, decode
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import (
    SIZE,
    chunk,
    decoded_or_refused,
    encoded,
    noise,
    png_of,
    tiff_of,
)

ZEROS = zlib.compress(bytes(2**26), 9)  # 64 KB that become 64 MB


def _gif(width: int, height: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b";"


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 1000, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def _tiff(width: int, height: int, **tags: tuple[int, int, int]) -> bytes:
    given = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, 64),
    }
    return tiff_of(given | {int(t[1:]): v for t, v in tags.items()}, bytes(64))


def _jpeg(width: int, height: int) -> bytes:
    content = bytearray(encoded(noise(0, 16, 16, 3), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _webp(width: int, height: int) -> bytes:
    content = bytearray(encoded(noise(0, 16, 16, 3), "WEBP"))
    at = content.index(b"\x9d\x01\x2a") + 3
    content[at : at + 4] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
    return bytes(content)


SIZED: dict[str, Callable[[int, int], bytes]] = {
    "PNG": lambda width, height: png_of(width, height, ZEROS),
    "JPEG": _jpeg,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "PPM": lambda width, height: b"P6 %d %d 255\n" % (width, height) + bytes(100),
    "PGM of 16 bits": lambda width, height: b"P5 %d %d 65535\n" % (width, height) + bytes(100),
    "PBM": lambda width, height: b"P4 %d %d\n" % (width, height) + bytes(100),
    "plain PPM": lambda width, height: b"P3 %d %d 255\n" % (width, height) + b"0 " * 100,
    "PFM": lambda width, height: b"Pf\n%d %d\n-1.0\n" % (width, height) + bytes(100),
}


def cases() -> Iterator[Case]:
    for name, make in SIZED.items():
        yield Case(f"{name} of 60,000 x 60,000", partial(_huge, make, 60000, 60000), "high", 20)
        yield Case(f"{name} of 12,000 x 12,000", partial(_huge, make, 12000, 12000), "high", 20)
        yield Case(f"{name} of 1 x 60,000", partial(_long, make, 1, 60000), "high", 20)
        yield Case(
            f"{name} of no pixels", partial(_sizes, make, [(0, 8), (8, 0), (0, 0)]), "high", 20
        )
    yield Case("WEBP of 16,383 x 16,383", partial(_huge, _webp, 16383, 16383), "high", 20)
    wide = {name: make for name, make in SIZED.items() if name in ("PNG", "TIFF", "BMP", "PPM")}
    for name, make in wide.items():
        sides = [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (2**31, 2**31), (2**32 - 1, 1)]
        yield Case(f"{name} of sides near 2^31", partial(_sizes, make, sides), "high", 20)
    yield Case("a PNG of more bytes than pixels", _surplus, "high", 20)
    yield Case("a PNG whose text becomes 64 MB", partial(_refused_or_small, "zTXt"), "high", 20)
    yield Case("a PNG whose profile becomes 64 MB", partial(_refused_or_small, "iCCP"), "high", 20)
    yield Case("a PNG with 100,000 empty chunks", _chunks, "high", 30)
    yield Case("a progressive JPEG of 10,000 scans", _scans, "high", 20)
    yield Case("a TIFF whose directory points to itself", partial(_loop, 74), "high", 20)
    yield Case("a TIFF of a tile of 60,000 x 60,000", _tile, "high", 20)
    yield Case("a TIFF with a million strips", _strips, "high", 20)
    yield Case("a TIFF of a billion values in a tag", _values, "high", 20)
    yield Case("EXIF whose directories point to each other", _exif_loop, "high", 20)
    yield Case("a GIF of 500 frames: the first", partial(_frames, "GIF", 500), seconds=20)
    yield Case("a WEBP of 20 frames: the first", partial(_frames, "WEBP", 20), seconds=20)
    yield Case("a PNG of 20 frames: the first", partial(_frames, "PNG", 20), seconds=20)
    yield Case("a TIFF of 20 pages: the first", partial(_frames, "TIFF", 20), seconds=20)
    yield Case("an image of just too many bytes", _bytes, "high", 30)
    yield Case("the largest image that is taken", _largest, "high", 60)
    yield Case("an aspect of 50 is taken, of 51 refused", _aspect)


def _huge(make: Callable[[int, int], bytes], width: int, height: int, folder: Path) -> None:
    error = refused(lambda: decode(make(width, height), SIZE))
    if "pixels" not in str(error):
        raise FaultError(f"refused, but not for its size: {error}")


def _long(make: Callable[[int, int], bytes], width: int, height: int, folder: Path) -> None:
    refused(lambda: decode(make(width, height), SIZE), f"{width} x {height} pixels", "crop it")


def _sizes(make: Callable[[int, int], bytes], sides: list[tuple[int, int]], folder: Path) -> None:
    for width, height in sides:
        try:
            content = make(width, height)
        except struct.error:  # the format has no room for such a side
            continue
        refused(lambda content=content: decode(content, SIZE))  # type: ignore[misc]


def _surplus(folder: Path) -> None:
    decoded_or_refused(decode, png_of(8, 8, ZEROS))


def _refused_or_small(kind: str, folder: Path) -> None:
    data = zlib.compress(bytes(8 * 25))
    extra = chunk(kind.encode(), b"x\0\0" + ZEROS)
    decoded_or_refused(decode, png_of(8, 8, data, *[extra] * 30))


def _chunks(folder: Path) -> None:
    data = zlib.compress(bytes(8 * 25))
    decoded_or_refused(decode, png_of(8, 8, data, *[chunk(b"tEXt", b"a\0b")] * 100_000))


def _scans(folder: Path) -> None:
    """Progressive, a scan repeated."""
    content = encoded(noise(0, 1024, 1024, 3), "JPEG", progressive=True, quality=10)
    last = content.rindex(b"\xff\xda")
    many = content[:last] + b"\xff\xda\0\x08\1\1\0\0\0\0" * 10_000 + content[last:]
    refused(lambda: decode(many, SIZE), "scans; must have at most 100")


GRAY = {
    256: (4, 1, 8),
    257: (4, 1, 8),
    258: (3, 1, 8),
    259: (3, 1, 1),
    262: (3, 1, 1),
    273: (4, 1, 8),
    277: (3, 1, 1),
    278: (4, 1, 8),
    279: (4, 1, 64),
}
"""The tags of a TIFF of 8 by 8 grays in one strip of 64 bytes."""


def _loop(following: int, folder: Path) -> None:
    decoded_or_refused(decode, tiff_of(GRAY, bytes(64), following=8 + 64))


def _tile(folder: Path) -> None:
    kept = {tag: value for tag, value in GRAY.items() if tag not in (273, 278, 279)}
    tile = {322: (4, 1, 60000), 323: (4, 1, 60000), 324: (4, 1, 8), 325: (4, 1, 64)}
    decoded_or_refused(decode, tiff_of(kept | {259: (3, 1, 8)} | tile, bytes(64)))


def _strips(folder: Path) -> None:
    count = 1_000_000
    tags = GRAY | {273: (4, count, 8), 278: (4, 1, 1), 279: (4, count, 8)}
    decoded_or_refused(decode, tiff_of(tags, bytes(4 * count)))


def _values(folder: Path) -> None:
    tags = GRAY | {256: (4, 2**30, 8), 258: (3, 2**31 - 1, 8)}
    decoded_or_refused(decode, tiff_of(tags, bytes(64)))


def _exif_loop(folder: Path) -> None:
    directory = struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory
    if not decoded_or_refused(decode, encoded(noise(0, 8, 8, 3), "JPEG", exif=exif)):
        raise FaultError("an image without a readable orientation is taken as it lies")


def _frames(form: str, count: int, folder: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), n % 200, np.uint8)) for n in range(count)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **lossless)
    decoded = decode(content, SIZE)
    if decoded.pixels.max() > 3 or FIRST_FRAME not in decoded.changes:
        raise FaultError(f"pixels {decoded.pixels.max()}, said {decoded.changes}")


def _bytes(folder: Path) -> None:
    content = encoded(noise(0, 8, 8, 3)) + bytes(MAX_FILE_BYTES)
    refused(lambda: decode(content, SIZE), f"must have at most {MAX_FILE_BYTES}")


def _largest(folder: Path) -> None:
    side = int(MAX_PIXELS**0.5)
    content = encoded(Image.new("L", (side, side), 9))
    if decode(content, SIZE).pixels.mean() != 9:
        raise FaultError("decoded to other pixels")


def _aspect(folder: Path) -> None:
    decode(encoded(noise(0, 2, 100, 3)), SIZE)
    refused(lambda: decode(encoded(noise(0, 2, 101, 3)), SIZE), "at most 50 times the shorter")
