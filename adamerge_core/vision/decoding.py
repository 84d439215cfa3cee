"""Decoding of image files: which formats, of what size, and what becomes of their pixels.

Pillow decodes them, with the plugins of FORMATS alone: none of these starts another program, as
Pillow's plugin for EPS does. What a format's numbers mean is followed (orientation, palette, 16
bits), or the image is refused where nothing says it. Nothing here imports torch.
"""

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from adamerge_core.errors import InputError
from adamerge_core.vision.names import printable

_PLUGINS = {  # importing them registers their formats
    "PNG": (PngImagePlugin, (".png",)),
    "JPEG": (JpegImagePlugin, (".jpg", ".jpeg", ".jfif")),
    "WEBP": (WebPImagePlugin, (".webp",)),
    "BMP": (BmpImagePlugin, (".bmp",)),
    "GIF": (GifImagePlugin, (".gif",)),
    "PPM": (PpmImagePlugin, (".ppm", ".pgm", ".pbm", ".pnm")),
    "TIFF": (TiffImagePlugin, (".tif", ".tiff")),
}

FORMATS = tuple(_PLUGINS)
"""Formats that are decoded, by Pillow's names, whatever the suffix of the file."""

IMAGE_SUFFIXES = tuple(suffix for _, suffixes in _PLUGINS.values() for suffix in suffixes)
"""Suffixes, in small letters, that make a file an image."""

MAX_FILE_BYTES = 2**28
"""Of an image file."""

MAX_PIXELS = 100_000_000
"""Of an image, as 10,000 x 10,000."""

MAX_ASPECT = 50
"""The longer side over the shorter; of a longer image the crop to the middle would show nothing."""

MAX_SCANS = 100
"""Of a progressive JPEG: each takes the time of a whole image, and few bytes."""

MAX_TAG_VALUES = 50_000
"""Of numbers in a tag of a TIFF, as the places of its strips: each becomes an object of Python."""

BACKGROUND = (255, 255, 255)
"""White: on this lies what is transparent."""

TURNED = "turned as their EXIF orientation says"
COMPOSITED = "with transparent pixels, put on white"
SCALED = "of 16 bits, scaled to 8"
FIRST_FRAME = "of several frames, of which the first is taken"

_EIGHT_BITS = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "La", "PA", "RGBA", "RGBa")

_ORIENTATION = 0x0112  # the tag of EXIF and of TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A decoded image."""

    pixels: np.ndarray
    """uint8 [size, size, 3], RGB."""
    changes: tuple[str, ...] = ()
    """Which of TURNED, COMPOSITED, SCALED, FIRST_FRAME hold for the image."""


def decode(content: bytes, size: int) -> Decoded:
    """Decode an image file to `size` x `size` pixels.

    It is turned as its EXIF orientation says, its shorter side is resized to `size`, then it is
    cropped to the middle. 16-bit gray is scaled to 8 bits; what is transparent is put on white; of
    several frames the first is taken; colour profiles are not applied.
    Raises InputError, which says why, for what is none of FORMATS, is broken, is larger than
    MAX_FILE_BYTES, MAX_PIXELS, MAX_ASPECT or MAX_SCANS allow, or has pixels without a stated range
    (floats, 32-bit integers) or in CIE L*a*b*.
    """
    if not isinstance(content, bytes):
        raise InputError(f"an image of type {type(content).__name__}: give the file's bytes")
    check_size(size)
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"has {len(content)} bytes; must have at most {MAX_FILE_BYTES}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is broken and not needed
        try:
            image, changes = _opened(content)
        except (MemoryError, InputError):
            raise
        except UnidentifiedImageError as error:
            raise InputError(_unknown(content)) from error
        except Image.DecompressionBombError as error:
            raise InputError(f"has more than {MAX_PIXELS} pixels; make it smaller") from error
        except Exception as error:  # Pillow raises many types for a broken file
            reason = printable(f"{type(error).__name__}: {error}")[:200]
            raise InputError(f"cannot be decoded ({reason}); replace it") from error
    return Decoded(_middle(image, size), changes)


def fit_pixels(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize and crop decoded pixels uint8 [H, W, 3], RGB, to uint8 [size, size, 3], as `decode`
    does those of a file. Raises InputError for an array of another kind, or too large or long.
    """
    check_size(size)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            f"is an array {pixels.dtype} {list(pixels.shape)}: must be uint8 [H, W, 3], RGB"
        )
    image = Image.fromarray(pixels)
    if fault := _size_fault(image):
        raise InputError(fault)
    return _middle(image, size)


def check_size(size: int) -> None:
    """Raise InputError unless `size` can be the side of prepared images: 1 to 4096 pixels."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
        raise InputError(f"image size {size!r}: must be an integer from 1 to 4096 (pixels)")


def _unknown(content: bytes) -> str:
    if not content:
        return "is empty; replace it"
    return (
        f"is no whole image of {', '.join(FORMATS)} (it begins with the bytes "
        f"{content[:4].hex(' ')}); save it as one of these, or replace it"
    )


def _opened(content: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode to RGB, upright. Raises what Pillow raises for a broken image, of any type."""
    _check_tags(content)
    with Image.open(io.BytesIO(content), formats=FORMATS) as file:
        _check_limits(file, content)
        orientations = {_orientation(file)}
        several = getattr(file, "is_animated", False)
        file.load()  # turns a TIFF by itself, and finds what a PNG has after its pixels
        orientations.add(left := _orientation(file))
        image, changes = _rgb(file)
    if left in _UPRIGHT:
        image = image.transpose(_UPRIGHT[left])
    if orientations & _UPRIGHT.keys():
        changes = (TURNED, *changes)
    return image, (*changes, FIRST_FRAME) if several else changes


def _check_limits(file: Image.Image, content: bytes) -> None:
    if fault := _size_fault(file):
        raise InputError(fault)
    if isinstance(file, JpegImagePlugin.JpegImageFile):
        scans = content.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise InputError(f"has {scans} scans; must have at most {MAX_SCANS}; save it again")


def _size_fault(image: Image.Image) -> str | None:
    width, height = image.size
    if width < 1 or height < 1:
        rule = "it has no pixels"
    elif width * height > MAX_PIXELS:
        rule = f"at most {MAX_PIXELS} pixels are decoded; make it smaller"
    elif max(width, height) > MAX_ASPECT * min(width, height):
        rule = f"the longer side may be at most {MAX_ASPECT} times the shorter; crop it"
    else:
        return None
    return f"is {width} x {height} pixels: {rule}"


def _check_tags(content: bytes) -> None:
    """Refuse a TIFF with a tag of too many numbers, before they are read."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 16:
        return
    big = struct.unpack_from(order + "H", content, 2) == (43,)
    head, count_form, entry = (8, "Q", "HHQ8x") if big else (4, "H", "HHI4x")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), content, head)
    first = start + struct.calcsize(count_form)
    if first > len(content):
        return
    (count,) = struct.unpack_from(order + count_form, content, start)
    size = struct.calcsize("<" + entry)
    for at in range(first, min(first + count * size, len(content) - size + 1), size):
        tag, kind, values = struct.unpack_from(order + entry, content, at)
        if values > MAX_TAG_VALUES and kind not in (1, 2, 7):  # bytes and text stay bytes
            raise InputError(
                f"has a tag ({tag}) of {values} values; must have at most {MAX_TAG_VALUES}"
            )


def _orientation(image: Image.Image) -> int | None:
    """Read the EXIF orientation; None where there is none, or the EXIF is broken."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:
        return None
    return value if isinstance(value, int) else None


def _rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert to RGB of 8 bits, with what had to be done; refuse what nothing says the range of."""
    if _is_sixteen_bits(image):
        gray, changes = _scaled(image)
    elif image.mode in _EIGHT_BITS:
        gray, changes = image, ()
    else:
        raise InputError(_refusal(image.mode))
    if isinstance(image, _TIFF) and 2 in image.tag_v2.get(_SAMPLE_FORMAT, ()):
        raise InputError(_refusal("I"))
    if not gray.has_transparency_data:
        return gray.convert("RGB"), changes
    layer = gray.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return layer.convert("RGB"), changes
    whole = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    whole.alpha_composite(layer)
    return whole.convert("RGB"), (*changes, COMPOSITED)


def _is_sixteen_bits(image: Image.Image) -> bool:
    # Pillow scales the values of a PPM of any range to 0 to 65535, in its mode of 32 bits
    return image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM")


def _scaled(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Scale gray values of 16 bits, or of a TIFF's 9 to 15, to 8; Pillow clips them to white."""
    values = np.asarray(image).astype(np.int64)
    bits = image.tag_v2.get(_BITS, (16,))[0] if isinstance(image, _TIFF) else 16
    gray = Image.fromarray((values * 255 // (2**bits - 1)).clip(0, 255).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return gray, (SCALED,)


_TIFF = TiffImagePlugin.TiffImageFile
_BITS, _SAMPLE_FORMAT = 258, 339  # tags of TIFF; the format 2 is integers with a sign


def _refusal(mode: str) -> str:
    kinds = {
        "F": "floats, whose range nothing says",
        "I": "32-bit or signed integers, whose range nothing says",
        "LAB": "colours in CIE L*a*b*, which are not converted",
    }
    return (
        f"has pixels of mode {mode!r}: {kinds.get(mode, 'not known')}; save it as RGB or gray of 8 "
        "bits, or gray of 16 bits from 0 to 65535"
    )


def _middle(image: Image.Image, size: int) -> np.ndarray:
    """Resize the shorter side to `size` pixels and crop to the middle: uint8 [size, size, 3].

    Resamples and rounds as torchvision's Resize (bicubic) and CenterCrop do, with which CLIP was
    trained.
    """
    width, height = image.size
    if (width, height) != (size, size):
        short = min(width, height)
        wide, high = size * width // short, size * height // short
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = round((wide - size) / 2), round((high - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)
