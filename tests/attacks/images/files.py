"""What the room `images` is made of: image files, folders of them, and their way to arrays."""

import codecs
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import DatasetImages, write_archive
from adamerge_core.vision.datasets import read_source
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.preparation import Prepared, prepare_archive
from tests.attacks.cases import FaultError, refused

TEMPLATES = ["a photo of a {}."]
SIZE = 8


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(seed: int) -> bytes:
    return encoded(noise(seed, SIZE, SIZE, 3))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_of(width: int, height: int, data: bytes, *extra: bytes, colour: int = 2) -> bytes:
    """A PNG with a header and data of one's own."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_of(
    tags: Mapping[int, tuple[int, int, int]],
    data: bytes = b"",
    following: int = 0,
    order: str = "<",
) -> bytes:
    """A TIFF: by tag its type, count and value; data begin at byte 8."""
    start = 8 + len(data)
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, count)
        + (
            struct.pack(order + "HH", value, 0)
            if kind == 3 and count == 1
            else struct.pack(order + "I", value)
        )
        for tag, (kind, count, value) in sorted(tags.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return (
        head
        + data
        + struct.pack(order + "H", len(tags))
        + entries
        + struct.pack(order + "I", following)
    )


def fill(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """A data folder of two classes; `files` are put over it, by their paths in it."""
    whole: dict[str, bytes] = {}
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                seed = 1000 * label + 100 * (split == "test") + index
                whole[f"{split}/{name}/{index}.png"] = png(seed)
    for name, content in (whole | dict(files or {})).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def table(folder: Path, rows: Mapping[str, str] | None = None) -> Path:
    """A CSV file beside the files of `fill`; rows: label by path, put over it."""
    listed = {
        f"{split}/{name}/{index}.png": name
        for split, count in (("train", 4), ("test", 2))
        for name in ("cat", "dog")
        for index in range(count)
    } | dict(rows or {})
    text = "path,label\n" + "".join(f"{quoted(p)},{quoted(n)}\n" for p, n in listed.items())
    (folder / "images.csv").write_text(text, encoding="utf-8", newline="")
    return folder / "images.csv"


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def folder_images(folder: Path, /, **parameters: Any) -> DatasetImages:
    entry = {"source": "image_folder", "path": str(folder), "templates": TEMPLATES}
    return read_source("pets", entry | parameters).images("pets")


def csv_images(path: Path, /, **parameters: Any) -> DatasetImages:
    entry = {"source": "csv_file", "path": str(path), "templates": TEMPLATES}
    return read_source("pets", entry | parameters).images("pets")


def listing(kind: str, data: Path, *, name: str, label: str) -> Callable[[], DatasetImages]:
    """Both sources, by name, on the same files: what gives the images of `data`."""
    if kind == "image_folder":
        return lambda: folder_images(data)
    path = table(data, {name: label})
    return lambda: csv_images(path)


def through(images: DatasetImages, folder: Path, unreadable: Any = "fail") -> Prepared:
    """Write the archive and prepare it; check that all that is counted is there."""
    write_archive(folder / "out" / "images.zip", images)
    prepared = prepare_archive(folder / "out" / "images.zip", SIZE, places(folder), unreadable)
    for split, count in prepared.counts.items():
        assert len(LabeledImages.open(*places(folder)(split)).labels) == count
    return prepared


def places(folder: Path) -> Callable[[str], tuple[Path, Path]]:
    """Where prepared splits lie."""
    return lambda split: (folder / "out" / f"{split}.npy", folder / "out" / f"{split}_labels.npy")


def special(kind: str, path: Path) -> None:
    """Put at `path` something that is no regular file, or no sane one."""
    targets = {
        "link to /dev/zero": "/dev/zero",
        "link to /dev/null": "/dev/null",
        "link to /dev/stdin": "/dev/stdin",
        "link to /dev/random": "/dev/random",
        "link to /dev/tty": "/dev/tty",
        "link to nothing": "nowhere.png",
        "link to itself": path.name,
        "link to a folder": ".",
        "link to a file without end": "/proc/self/pagemap",
    }
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to("pipe")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "terabyte":
        with path.open("wb") as file:
            file.write(png(0))
            file.truncate(2**40)
    elif kind == "no permission":
        path.write_bytes(png(0))
        path.chmod(0)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        raise ValueError(kind)


SPECIAL = (
    "pipe", "socket", "folder", "terabyte", "no permission", "empty", "link to a pipe",
    "link to /dev/zero", "link to /dev/null", "link to /dev/stdin", "link to /dev/random",
    "link to /dev/tty", "link to nothing", "link to itself", "link to a folder",
    "link to a file without end",
)  # fmt: skip


def as_nobody(folder: Path) -> None:
    """Go on as a user whom permissions bind; the folder becomes this user's."""
    codecs.lookup("utf-8-sig")  # imported while it can be
    if os.getuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def decoded_or_refused(decode: Callable[[bytes, int], Any], content: bytes) -> bool:
    """Decode; an InputError is a good end, and the pixels must be of the form promised."""
    try:
        pixels = decode(content, SIZE).pixels
    except InputError:
        return False
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    return True


def refused_in_print(call: Callable[[], Any], *told: str) -> InputError:
    """Give the InputError that the call raises; every line of its message can be printed."""
    error = refused(call, *told)
    if not all(line.isprintable() for line in str(error).splitlines()):
        raise FaultError(f"the message is {str(error)!r}")
    return error


def mutated(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Change a file at random: bits, bytes, ranges cut out, doubled or moved, its end."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            if not changed:
                break
            # mostly in the header
            at = int(rng.random() ** 2 * len(changed))
            length = int(rng.integers(1, 9))
            kind = rng.integers(7)
            if kind == 0:
                changed[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                changed[at] = int(rng.choice([0, 1, 127, 128, 255]))
            elif kind == 2:
                changed[at : at + length] = rng.bytes(length)
            elif kind == 3:
                del changed[at : at + length]
            elif kind == 4:
                changed[at:at] = changed[at : at + 8 * length]
            elif kind == 5:
                changed[at : at + 4] = struct.pack("<I", int(rng.choice([0, 2**31, 2**32 - 1])))
            else:
                del changed[max(1, len(changed) - 8 * length) :]
        yield bytes(changed)
