"""What pixels mean: orientation, transparency, ranges, colours; converted right, or refused."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from adamerge_core.vision.decoding import COMPOSITED, SCALED, TURNED, decode
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import (
    SIZE,
    encoded,
    fill,
    folder_images,
    noise,
    through,
    tiff_of,
)

EXACT = ("PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP")
MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBX")
ALPHA = ("LA", "PA", "RGBA")


def cases() -> Iterator[Case]:
    for value in range(1, 9):
        for form in ("JPEG", "PNG", "WEBP", "TIFF"):
            yield Case(f"{form} of EXIF orientation {value}", partial(_turned, form, value))
    for value in (0, 9, 255, 65535):
        yield Case(f"EXIF orientation {value}, which is none", partial(_not_turned, value))
    yield Case("EXIF that cannot be read", _broken_exif)
    for form, mode in [(f, m) for f in EXACT for m in MODES]:
        if _can_save(form, mode):
            yield Case(f"{form} of mode {mode}", partial(_opaque, form, mode))
    for form, mode in [(f, m) for f in ("PNG", "TIFF", "WEBP") for m in ALPHA]:
        if _can_save(form, mode):
            yield Case(f"{form} of mode {mode}, half transparent", partial(_alpha, form, mode))
    yield Case("GIF with a transparent colour", partial(_keyed, "GIF", "P", 3))
    yield Case("PNG with a transparent palette entry", partial(_keyed, "PNG", "P", 3))
    yield Case("PNG with transparencies of a palette", _palette_alpha)
    yield Case("PNG of gray with a transparent gray", partial(_keyed, "PNG", "L", 3))
    yield Case("PNG of RGB with a transparent colour", partial(_keyed, "PNG", "RGB", (3, 3, 3)))
    yield Case("PNG of 16 bits with a transparent gray", _sixteen_keyed)
    yield Case("TIFF with premultiplied alpha", _premultiplied)
    yield Case("what is wholly transparent is white", _invisible)
    for name, make in SIXTEEN.items():
        yield Case(f"{name}: 16 bits to 8", partial(_sixteen, make))
    yield Case("TIFF of 12 bits", _twelve)
    for dtype in ("float32", "float64", "int32", "uint32", "int16", "int8"):
        for top in (1, 255):
            yield Case(f"TIFF of {dtype} up to {top}", partial(_no_range, dtype, top))
    yield Case("TIFF of CIE L*a*b*", partial(_refused_mode, "LAB"))
    yield Case("PFM of floats", _pfm)
    yield Case("TIFF of gray whose 0 is white", _white_is_zero)
    yield Case("what was done is counted by prepare", _counted)


def _can_save(form: str, mode: str) -> bool:
    try:
        encoded(Image.new(mode, (8, 8)), form)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _close(pixels: np.ndarray, expected: np.ndarray, within: float) -> None:
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    far = np.abs(pixels.astype(float) - expected.astype(float)).max()
    if far > within:
        raise FaultError(f"differs by {far} of 255")


def _corner() -> Image.Image:
    image = Image.new("RGB", (8, 8))
    image.paste((255, 0, 0), (0, 0, 4, 2))
    return image


def _turned(form: str, value: int, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    content = encoded(_corner(), form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    marked = _corner()
    marked.getexif()[0x0112] = value
    decoded = decode(content, SIZE)
    upright = np.asarray(ImageOps.exif_transpose(marked))[..., 0] > 128
    if not np.array_equal(decoded.pixels[..., 0] > 128, upright):
        raise FaultError(f"lies as {np.argwhere(decoded.pixels[..., 0] > 128)}")
    if (TURNED in decoded.changes) != (value > 1):
        raise FaultError(f"said {decoded.changes}")


def _not_turned(value: int, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    decoded = decode(encoded(_corner(), "PNG", exif=exif), SIZE)
    _close(decoded.pixels, np.asarray(_corner()), 0)
    if decoded.changes:
        raise FaultError(f"said {decoded.changes}")


def _broken_exif(folder: Path) -> None:
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*" + b"\xff" * 40,
    ):
        _close(decode(encoded(_corner(), "PNG", exif=exif), SIZE).pixels, np.asarray(_corner()), 0)


def _opaque(form: str, mode: str, folder: Path) -> None:
    source = Image.fromarray(noise(0, 8, 8, 3)).convert("RGB" if mode == "RGBX" else mode)
    source = source.convert(mode)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    decoded = decode(encoded(source, form, **options), SIZE)
    _close(decoded.pixels, np.asarray(source.convert("RGB")), 2)
    if decoded.changes:
        raise FaultError(f"said {decoded.changes}")


def _alpha(form: str, mode: str, folder: Path) -> None:
    image = Image.fromarray(noise(0, 8, 8, 3)).convert(mode)
    image.putalpha(Image.fromarray(noise(1, 8, 8)))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    decoded = decode(encoded(image, form, **options), SIZE)
    whole = np.asarray(image.convert("RGBA")).astype(float)
    share = whole[..., 3:] / 255
    _close(decoded.pixels, whole[..., :3] * share + 255 * (1 - share), 2)
    if COMPOSITED not in decoded.changes:
        raise FaultError(f"said {decoded.changes}")


def _keyed(form: str, mode: str, key: int | tuple[int, ...], folder: Path) -> None:
    values = noise(0, 8, 8) % 8
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, mode="L").convert("P")
        image.putpalette([n for value in range(256) for n in (value, value, value)])
    elif mode == "RGB":
        image = image.convert("RGB")
    decoded = decode(encoded(image, form, transparency=key), SIZE)
    _close(decoded.pixels, np.where(values == 3, 255, values), 0)
    if COMPOSITED not in decoded.changes:
        raise FaultError(f"said {decoded.changes}")


def _palette_alpha(folder: Path) -> None:
    values = noise(0, 8, 8) % 4
    image = Image.fromarray(values).convert("P")
    image.putpalette([100] * 12)
    decoded = decode(encoded(image, transparency=bytes([0, 128, 255, 255])), SIZE)
    _close(decoded.pixels, np.array([255, 177, 100, 100])[values], 1)


def _sixteen_keyed(folder: Path) -> None:
    values = np.array([[0, 1000], [30000, 65535]], dtype=np.uint16)
    decoded = decode(encoded(values, transparency=1000), 2)
    _close(decoded.pixels, np.array([[0, 255], [116, 255]]), 0)
    if decoded.changes != (SCALED, COMPOSITED):
        raise FaultError(f"said {decoded.changes}")


def _premultiplied(folder: Path) -> None:
    pixel = bytes([50, 0, 0, 128])  # of red 100, half there
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 4, 8),
        259: (3, 1, 1),
        262: (3, 1, 2),
        273: (4, 1, 16),
        277: (3, 1, 4),
        278: (4, 1, 8),
        279: (4, 1, 256),
        338: (3, 1, 1),
    }
    content = tiff_of(tags, b"\x08\0\x08\0\x08\0\x08\0" + pixel * 64)
    _close(decode(content, SIZE).pixels, np.full((8, 8, 3), [177, 127, 127]), 2)


def _invisible(folder: Path) -> None:
    for mode in ("RGBA", "LA"):
        _close(decode(encoded(Image.new(mode, (8, 8))), SIZE).pixels, np.full((8, 8), 255), 0)


RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def _pgm(values: np.ndarray) -> bytes:
    return b"P5 8 8 65535\n" + values.astype(">u2").tobytes()


GRAY = {
    256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
    273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, 64),
}  # fmt: skip


def _tiff_of_order(order: str, values: np.ndarray) -> bytes:
    tags = GRAY | {258: (3, 1, 16), 279: (4, 1, 128)}
    return tiff_of(tags, values.astype(order + "u2").tobytes(), order=order)


def _rgb_png(values: np.ndarray) -> bytes:
    import struct
    import zlib

    from tests.attacks.images.files import chunk

    rows = np.repeat(values[..., None], 3, axis=2).astype(">u2")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SIXTEEN: dict[str, Callable[[np.ndarray], bytes]] = {
    "gray PNG": encoded,
    "RGB PNG": _rgb_png,
    "gray TIFF": partial(_tiff_of_order, "<"),
    "gray TIFF, the high byte first": partial(_tiff_of_order, ">"),
    "PGM": _pgm,
    "PGM of numbers": lambda v: b"P2 8 8 65535\n" + " ".join(map(str, v.ravel())).encode(),
}


def _sixteen(make: Callable[[np.ndarray], bytes], folder: Path) -> None:
    _close(decode(make(RAMP), SIZE).pixels, RAMP / 257, 1)


def _twelve(folder: Path) -> None:
    packed = b"".join(bytes([0xFF, 0xF0, 0x00]) for _ in range(32))  # 4095, 0, 4095, ...
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 1, 12),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, 8),
        279: (4, 1, 96),
    }
    _close(decode(tiff_of(tags, packed), SIZE).pixels, np.tile([255, 0], (8, 4)), 0)


def _no_range(dtype: str, top: int, folder: Path) -> None:
    values = np.linspace(0, top, 64).reshape(8, 8).astype(dtype)
    kind = {"f": 3, "i": 2, "u": 1}[values.dtype.kind]
    size = values.dtype.itemsize
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 1, 8 * size),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, 8),
        279: (4, 1, values.nbytes),
        339: (3, 1, kind),
    }
    content = tiff_of(tags, values.tobytes())
    refused(lambda: decode(content, SIZE), "save it as")


def _refused_mode(mode: str, folder: Path) -> None:
    content = encoded(Image.new(mode, (8, 8)), "TIFF")
    refused(lambda: decode(content, SIZE), f"pixels of mode {mode!r}", "save it as RGB")


def _pfm(folder: Path) -> None:
    content = b"Pf\n8 8\n-1.0\n" + np.ones(64, dtype="<f4").tobytes()
    refused(lambda: decode(content, SIZE), "floats, whose range nothing says", "save it")


def _white_is_zero(folder: Path) -> None:
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 0),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, 8),
        279: (4, 1, 64),
    }
    _close(
        decode(tiff_of(tags, bytes(range(64))), SIZE).pixels, 255 - np.arange(64).reshape(8, 8), 0
    )


def _counted(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "train/cat/a.jpg": encoded(_corner(), "JPEG", exif=exif),
        "train/cat/b.png": encoded(Image.new("RGBA", (8, 8))),
        "train/dog/c.png": encoded(Image.new("LA", (8, 8))),
    }
    changes = through(folder_images(fill(folder / "pets", files)), folder).changes
    if changes != {TURNED: 1, COMPOSITED: 2}:
        raise FaultError(f"counted {changes}")
