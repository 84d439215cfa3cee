"""Files of foreign formats under the suffixes of images: none is opened, none starts a program."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from adamerge_core.vision.decoding import IMAGE_SUFFIXES, decode
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import SIZE, encoded, fill, folder_images, noise, through

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
WRITES = EPS + b"(ran) (w) file closefile\nshowpage\n%%EOF\n"
LOOPS = EPS + b"{} loop\n%%EOF\n"

WRITTEN_BY_PILLOW = (
    "ICO", "ICNS", "TGA", "DDS", "PCX", "SGI", "IM", "MSP", "JPEG2000", "AVIF", "PDF", "SPIDER",
    "BLP", "QOI", "DIB", "EPS", "XBM",
)  # fmt: skip

BEGINNINGS = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(sh)>>>>endobj\n",
    "PSD": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x08\0\0\0\x08\0\x08\0\3" + bytes(300),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(8) + b"\x08\0\x08\0" + bytes(60),
    "FLI": bytes(4) + b"\x11\xaf\1\0\x08\0\x08\0\x08\0" + bytes(200),
    "XPM": b'/* XPM */\nstatic char *x[] = {\n"8 8 1 1",\n"a c #000000",\n' + b'"aaaaaaaa",\n' * 8,
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "GRIB": b"GRIB\0\0\0\1" + bytes(100),
    "BUFR": b"BUFR" + bytes(100),
    "MPEG": b"\0\0\1\xb3\0\x80\x08" + bytes(100),
    "GBR": b"\0\0\0\x1c\0\0\0\2\0\0\0\x08\0\0\0\x08\0\0\0\3GIMP" + bytes(200),
    "SUN": b"\x59\xa6\x6a\x95\0\0\0\x08\0\0\0\x08\0\0\0\x18" + bytes(250),
    "CUR": b"\0\0\2\0\1\0" + bytes(80),
    "DCX": b"\xb1\x68\xde\x3a" + bytes(100),
    "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n8 8 255\n" + bytes(64),
    "ZIP": b"PK\x03\x04" + bytes(100),
    "ELF": b"\x7fELF" + bytes(100),
    "shell": b"#!/bin/sh\ntouch ran\n",
    "HTML": b"<!doctype html><script>fetch('/')</script>",
    "pickle": b"\x80\x04cposix\nsystem\n(S'touch ran'\ntR.",
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
    "MVG": b"push graphic-context\nfill 'url(https://x/\"|touch ran\")'\n",
    "AppleDouble": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


def cases() -> Iterator[Case]:
    programs = {
        f"that writes a file, as x{each}": partial(_postscript, each, WRITES)
        for each in IMAGE_SUFFIXES
    }
    for suffix in (".png", ".jpg", ".tif"):
        programs[f"that never ends, as x{suffix}"] = partial(_postscript, suffix, LOOPS)
    loaded = partial(_postscript, ".png", WRITES, load_all=True)
    programs["after Pillow has loaded all plugins"] = loaded
    for name, program in programs.items():
        yield Case(f"PostScript {name}", program, "critical", seconds=20)
    dos = b"\xc5\xd0\xd3\xc6\x20\0\0\0" + len(WRITES).to_bytes(4, "little") + bytes(20) + WRITES
    yield Case("PostScript with the header of DOS", partial(_postscript, ".png", dos), "critical")
    for form in WRITTEN_BY_PILLOW:
        yield Case(f"{form} as written by Pillow", partial(_written, form), "high", seconds=20)
    for name, content in BEGINNINGS.items():
        yield Case(f"{name} by its beginning", partial(_begun, content), "high", seconds=20)
    for form, suffix in (("JPEG", ".png"), ("PNG", ".jpg"), ("WEBP", ".bmp"), ("TIFF", ".gif")):
        yield Case(f"{form} named {suffix} is decoded", partial(_misnamed, form, suffix))


def _postscript(suffix: str, content: bytes, folder: Path, *, load_all: bool = False) -> None:
    if load_all:
        Image.init()
    fill(folder / "pets", {f"train/cat/x{suffix}": content})
    refused(
        lambda: through(folder_images(folder / "pets"), folder),
        f"train/cat/x{suffix} (split train, class cat)",
        "is no whole image of PNG, JPEG",
        "save it as one of these",
    )
    if Path("ran").exists():
        raise FaultError("the PostScript ran")


def _written(form: str, folder: Path) -> None:
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}.get(form, "RGB")
    content = encoded(Image.fromarray(noise(0, 16, 16, 3)).convert(mode), form)
    Image.init()
    refused(lambda: decode(content, SIZE), "is no whole image of PNG", "save it as one of these")


def _begun(content: bytes, folder: Path) -> None:
    Image.init()
    refused(lambda: decode(content, SIZE), "is no whole image of PNG", "save it as one of these")
    if Path("ran").exists():
        raise FaultError("it ran")


def _misnamed(form: str, suffix: str, folder: Path) -> None:
    content = encoded(noise(0, 16, 16, 3), form)
    fill(folder / "pets", {f"train/cat/x{suffix}": content})
    counts = through(folder_images(folder / "pets"), folder).counts
    if sum(counts.values()) != 13:
        raise FaultError(f"of 13 images came {counts}")
