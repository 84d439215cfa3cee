"""Archives that are not what they seem: sizes, compression, names, damage."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import (
    ArchivedImage,
    DatasetImages,
    encode,
    open_archive,
    write_archive,
)
from adamerge_core.vision.decoding import MAX_FILE_BYTES
from adamerge_core.vision.preparation import prepare_archive
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import SIZE, mutated, noise, places, png, refused_in_print

NAMES = {"classes": ["cat", "dog"], "templates": ["a {}."]}
MEMBERS = {
    f"{split}/{label:04d}/{index:06d}.png": png(index)
    for index, (split, label) in enumerate(
        (split, label) for split in ("train", "val", "test") for label in (0, 1)
    )
}


def zipped(
    members: Mapping[str, bytes] | None = None,
    names: Any = NAMES,
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """An archive as `write_archive` makes it, but for what is given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        if names is not None:
            text = names if isinstance(names, bytes) else json.dumps(names).encode()
            archive.writestr(zipfile.ZipInfo("classes.json"), text)
        for index, (name, content) in enumerate((MEMBERS | dict(members or {})).items()):
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            member.comment = f"pets/{index}.png".encode()
            archive.writestr(member, content)
    return buffer.getvalue()


def _central(content: bytes, change: Callable[[bytearray, int], None], nth: int = 1) -> bytes:
    """Change an entry of the archive's directory; `change` gets where it begins."""
    changed, at = bytearray(content), -1
    for _ in range(nth + 1):
        at = content.index(b"PK\x01\x02", at + 1)
    change(changed, at)
    return bytes(changed)


def _put(form: str, offset: int, *values: int) -> Callable[[bytearray, int], None]:
    return lambda content, at: struct.pack_into("<" + form, content, at + offset, *values)


def _comment(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("classes.json"), json.dumps(NAMES))
        for name, image in MEMBERS.items():
            member = zipfile.ZipInfo(name)
            member.comment = content
            archive.writestr(member, image)
    return buffer.getvalue()


def _doubled() -> bytes:
    buffer = io.BytesIO(zipped())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.fp.seek(archive.start_dir)  # type: ignore[union-attr]
        archive.NameToInfo.clear()
        archive.writestr(zipfile.ZipInfo("train/0000/000000.png"), png(9))
    return buffer.getvalue()


def _overlapping() -> bytes:
    """Every entry of the directory points to the largest file, which stands once."""
    large = {"train/0000/000000.png": bytes(2**20)}
    content = zipped(large)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first = archive.getinfo("train/0000/000000.png")
    for nth in range(2, 7):
        content = _central(content, _put("I", 42, first.header_offset), nth)
        content = _central(content, _put("II", 20, 2**20, 2**20), nth)
        content = _central(content, _put("I", 16, first.CRC), nth)
    return content


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "an image deflated": (lambda: zipped(method=zipfile.ZIP_DEFLATED), "must be stored"),
    "2 MB deflated that become 1.9 GB": (lambda: _bomb(zipfile.ZIP_DEFLATED), "must be stored"),
    "bzip2 that becomes 1.9 GB": (lambda: _bomb(zipfile.ZIP_BZIP2), "must be stored"),
    "LZMA that becomes 1.9 GB": (lambda: _bomb(zipfile.ZIP_LZMA), "must be stored"),
    "names deflated": (lambda: _names_bomb(), "must be stored"),
    "a size that is a lie": (lambda: _central(zipped(), _put("I", 24, 2**31)), "must be stored"),
    "both sizes a lie": (lambda: _central(zipped(), _put("II", 20, 2**27, 2**27)), "but the file"),
    "sizes of 2^32": (
        lambda: _central(zipped(), _put("II", 20, 2**32 - 2, 2**32 - 2)),
        f"must have at most {MAX_FILE_BYTES}",
    ),
    "an encrypted member": (lambda: _central(zipped(), _put("H", 8, 1)), "is encrypted"),
    "an unknown compression": (lambda: _central(zipped(), _put("H", 10, 99)), "must be stored"),
    "members that share their bytes": (_overlapping, ""),
    "an offset beyond the end": (lambda: _central(zipped(), _put("I", 42, 2**31)), "pets/0.png"),
    "an offset to another member": (lambda: _central(zipped(), _put("I", 42, 0)), "pets/0.png"),
    "a wrong checksum": (lambda: _central(zipped(), _put("I", 16, 7)), "pets/0.png"),
    "a member twice": (_doubled, "stands twice"),
    "a member that climbs out": (lambda: zipped({"../../x.png": b""}), "must be <split>/<label>"),
    "a member with an absolute path": (lambda: zipped({"/etc/x.png": b""}), "must be <split>/"),
    "a member of an unknown split": (lambda: zipped({"dev/0000/000009.png": b""}), "must be <s"),
    "a member of no label": (lambda: zipped({"train/cat/000009.png": b""}), "must be <split>/"),
    "a label of 5,000 digits": (lambda: zipped({f"train/{'9' * 5000}/000009.png": b""}), "must be"),
    "a label of other digits": (lambda: zipped({"train/٠٠٠٠/000009.png": b""}), "must be <split>"),
    "a label below 0": (lambda: zipped({"train/-001/000009.png": b""}), "must be <split>/<label>"),
    "a label beyond the classes": (
        lambda: zipped({"train/0002/000009.png": png(0)}),
        "there are 2 classes",
    ),
    "a folder as a member": (lambda: zipped({"train/0000/": b""}), "must be <split>/<label>"),
    "a member without a suffix": (lambda: zipped({"train/0000/000009": b""}), "must be <split>/"),
    "a name with control characters": (
        lambda: zipped({"train/\x1b[2J/000009.png": b""}),
        "must be <split>",
    ),
    "a comment that is not UTF-8": (lambda: _comment(b"\xff\xfe"), "its name is not UTF-8"),
    "no names": (lambda: zipped(names=None), "classes.json"),
    "names that are no JSON": (lambda: zipped(names=b"{"), "classes.json"),
    "names in UTF-16": (lambda: zipped(names=b"\xff\xfe{\0}\0"), "classes.json"),
    "names of 3,000 nested lists": (lambda: zipped(names=b"[" * 300_000), "classes.json"),
    "names of a number of 5,000 digits": (lambda: zipped(names=b"9" * 5000), "classes.json"),
    "names that are a list": (lambda: zipped(names=[]), "classes.json"),
    "names that are null": (lambda: zipped(names=b"null"), "classes.json"),
    "names without classes": (lambda: zipped(names={"templates": []}), "classes.json"),
    "classes that are text": (lambda: zipped(names=NAMES | {"classes": "cat"}), "two lists"),
    "classes that are numbers": (lambda: zipped(names=NAMES | {"classes": [1, 2]}), "two lists"),
    "a class twice but for its form": (
        lambda: zipped(names=NAMES | {"classes": ["\u00e9", "e\u0301"]}),
        "look the same",
    ),
    "a class of two lines": (lambda: zipped(names=NAMES | {"classes": ["a\nb", "c"]}), "printable"),
    "no classes": (lambda: zipped(names=NAMES | {"classes": []}), "there are 0 classes"),
    "an empty file": (lambda: b"", "not a whole zip file"),
    "a zip file of nothing": (lambda: b"PK\5\6" + bytes(18), "classes.json"),
    "a cut file": (lambda: zipped()[:-40], "not a whole zip file"),
    "a cut beginning": (lambda: zipped()[200:], ""),
    "an image in place of it": (lambda: png(0), "not a whole zip file"),
    "an archive in an archive": (lambda: zipped({"train/0000/000000.png": zipped()}), "pets/0.png"),
}


def _bomb(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("classes.json"), json.dumps(NAMES))
        member = zipfile.ZipInfo("train/0000/000000.png")
        member.compress_type = method
        with archive.open(member, "w", force_zip64=True) as file:
            for _ in range(8):
                file.write(bytes(2**20))
    # the rest of it is a lie: what would come out is not waited for
    return _central(buffer.getvalue(), _put("I", 24, 1_900_000_000))


def _names_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("classes.json", json.dumps(NAMES) + " " * 2**26)
        for name, content in MEMBERS.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


WRITTEN: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown split": ({"split": "dev"}, "split 'dev': must be one of"),
    "a split that climbs out": ({"split": "../train"}, "split '../train'"),
    "a label below 0": ({"label": -1}, "label -1: must be an integer of 0 to 1"),
    "a label beyond the classes": ({"label": 2}, "label 2"),
    "a label that is text": ({"label": "0"}, "label '0'"),
    "a label that is 0.5": ({"label": 0.5}, "label 0.5"),
    "a suffix that is a path": ({"suffix": "/../x"}, "suffix '/../x'"),
    "no suffix": ({"suffix": ""}, "suffix ''"),
    "a name of 70,000 bytes": ({"name": "a" * 70_000}, "must have at most 65535"),
}


def cases() -> Iterator[Case]:
    for name, (make, text) in WRONG.items():
        yield Case(f"archive: {name}", partial(_prepare, make, text), "high", seconds=30)
    for name, (changed, text) in WRITTEN.items():
        yield Case(f"to archive: {name}", partial(_write, changed, text))
    yield Case("to archive: no classes", partial(_write_names, []), "low")
    yield Case("to archive: a class that is a number", partial(_write_names, [1]))
    yield Case("to archive: a class of two lines", partial(_write_names, ["a\nb"]))
    yield Case("archive: the old one stays", _kept)
    yield Case("archive: a damaged one is never skipped", _not_skipped)
    yield Case("archive: a path given as text", _as_text)
    for seed in range(8):
        yield Case(f"archive: 50 mutations, seed {seed}", partial(_mutations, seed), "high", 60)


def _prepare(make: Callable[[], bytes], text: str, folder: Path) -> None:
    path = folder / "images.zip"
    path.write_bytes(make())
    refused_in_print(lambda: prepare_archive(path, SIZE, places(folder)), text, "images.zip")
    if any((folder / "out").glob("*")):
        raise FaultError("wrote arrays")


def _image(**changed: Any) -> ArchivedImage:
    given = {"split": "train", "label": 0, "suffix": ".png", "content": png(0), "name": "a.png"}
    return ArchivedImage(**(given | changed))


def _write(changed: dict[str, Any], text: str, folder: Path) -> None:
    data = DatasetImages(["cat", "dog"], ["{}"], 1, [_image(**changed)])
    refused(lambda: write_archive(folder / "images.zip", data), "image a", text)
    if any(folder.iterdir()):
        raise FaultError("wrote a file")


def _write_names(classes: list[Any], folder: Path) -> None:
    data = DatasetImages(classes, ["{}"], 1, [_image()])
    refused(lambda: write_archive(folder / "images.zip", data))


def _kept(folder: Path) -> None:
    path = folder / "images.zip"
    path.write_bytes(b"old")
    data = DatasetImages(["cat"], ["{}"], 2, [_image(), _image(label=9)])
    refused(lambda: write_archive(path, data), "label 9")
    if path.read_bytes() != b"old" or len(list(folder.iterdir())) != 1:
        raise FaultError("the old archive is gone")


def _not_skipped(folder: Path) -> None:
    content = bytearray(zipped())
    content[content.index(png(0)) + 40] ^= 1
    (folder / "images.zip").write_bytes(content)
    refused(
        lambda: prepare_archive(folder / "images.zip", SIZE, places(folder), "skip"),
        "images.zip: not a whole zip file (at the image pets/0.png)",
        "make it again",
    )


def _as_text(folder: Path) -> None:
    path = str(folder / "images.zip")
    images = [
        _image(split=split, content=encode(noise(0, 8, 8, 3))) for split in ("train", "val", "test")
    ]
    write_archive(path, DatasetImages(["cat"], ["{}"], 3, images))
    with open_archive(path) as archive:
        if len(list(archive.entries())) != 3:
            raise FaultError("other images")
    prepare_archive(path, SIZE, places(folder))


def _mutations(seed: int, folder: Path) -> int:
    """Read whole with the content as it was, or refused."""
    whole = zipped()
    for content in mutated(whole, seed, 50):
        (folder / "images.zip").write_bytes(content)
        try:
            with open_archive(folder / "images.zip") as archive:
                for entry in archive.entries():
                    if archive.read(entry) not in MEMBERS.values():
                        raise FaultError(f"another content of {entry}")
        except InputError:
            continue
    return 50
