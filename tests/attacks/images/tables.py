"""CSV files of any kind."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from adamerge_core.vision.datasets import read_source
from adamerge_core.vision.datasets.csv_file import MAX_TABLE_BYTES
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import (
    TEMPLATES,
    csv_images,
    fill,
    png,
    special,
    table,
    through,
)

GOOD = "".join(f"train/{name}/{n}.png,{name}\n" for name in ("cat", "dog") for n in range(4))
ALL = ("path,label\n" + GOOD).encode()


def _split(name: str) -> bytes:
    return ("path,label,split\n" + GOOD.replace("\n", f",{name}\n")).encode()


WRONG: dict[str, tuple[bytes, str]] = {
    "UTF-16": (("path,label\n" + GOOD).encode("utf-16"), "save it as CSV, UTF-8"),
    "UTF-32": (("path,label\n" + GOOD).encode("utf-32"), "save it as CSV, UTF-8"),
    "Latin-1": (("path,label\nä.png,cat\n" + GOOD).encode("latin-1"), "save it as CSV, UTF-8"),
    "a byte that is no UTF-8 at the end": (ALL + b"\xff", "UTF-8"),
    "a surrogate in UTF-8": (b"path,label\n\xed\xa0\x80.png,cat\n", "save it as CSV, UTF-8"),
    "semicolons": (("path;label\n" + GOOD.replace(",", ";")).encode(), "there are path;label"),
    "tabs": (("path\tlabel\n" + GOOD.replace(",", "\t")).encode(), "there are path\\tlabel"),
    "no header": (GOOD.encode(), "column 'path': is missing; there are train/cat/0.png, cat"),
    "an empty file": (b"", "column 'path': is missing; there are none"),
    "spaces in the header": (("path, label\n" + GOOD).encode(), "column 'label': is missing"),
    "capitals in the header": (("Path,Label\n" + GOOD).encode(), "there are Path, Label"),
    "a header alone": (b"path,label\n", "no image for training"),
    "a column twice": (("path,label,label\n" + GOOD).encode(), "column 'label': stands 2 times"),
    "a column of paths twice": (("path,label,path\n" + GOOD).encode(), "'path': stands 2 times"),
    "a split column twice": (("path,label,split,split\n" + GOOD).encode(), "'split': stands 2"),
    "a million columns": (b",".join(b"c%d" % n for n in range(10**6)) + b"\n", "and 999980 more"),
    "a million columns of one name": (b"path,label" + b",x" * 10**6 + b"\nno.png,cat\n", "no.png"),
    "a million values in a row": (ALL + b"," * 10**6, "more values"),
    "a value too many": (ALL + b"a.png,cat,b\n", "line 10: more val"),
    "a value too few": (ALL + b"train/cat/0.png\n", "no label"),
    "a quote that is never closed": (ALL + b'"a.png,cat\n' * 3, "quot"),
    "a quote in the middle": (ALL + b'"a".png,cat\n', "quote closed"),
    "a field of 200,000 characters": (b"path,label\n" + b"a" * 200_000 + b",a\n", "field larger"),
    "a quoted field of a megabyte": (b'path,label\n"' + b"a\n" * 2**19 + b'",a\n', "field larger"),
    "a line of 20 MB": (b"path,label\n" + b"a" * 20_000_000, "field larger"),
    "NUL in a path": (b"path,label\na\0b.png,cat\n", "a\\x00b.png: cannot be read"),
    "NULs alone": (bytes(10_000), "column 'path': is missing"),
    "NUL in a label": (ALL + b"train/cat/0.png,c\0t\n", "printable"),
    "a path of 10,000 characters": (b"path,label\n" + b"a" * 10_000 + b".png,cat\n", "cannot be"),
    "an empty path": (("path,label\n" + GOOD + ",cat\n").encode(), "line 10: no path"),
    "an empty label": (("path,label\n" + GOOD + "a.png,\n").encode(), "no label"),
    "a row twice": (("path,label\n" + GOOD + "train/cat/0.png,cat\n").encode(), "in line 2 too"),
    "a file under two labels": (("path,label\n" + GOOD + "train/cat/0.png,dog\n").encode(), "too"),
    "a file by two paths": (("path,label\n" + GOOD + "./train/cat/../cat/0.png,cat\n").encode(),
                            "stands in line 2 too"),
    "a folder": (("path,label\n" + GOOD + "train/cat,cat\n").encode(), "is a folder"),
    "a file that is no image": (ALL + b"/etc/passwd,cat\n", "no suffix"),
    "the table itself": (("path,label\n" + GOOD + "images.csv,cat\n").encode(), "no suffix"),
    "a device": (("path,label\n" + GOOD + "/dev/zero,cat\n").encode(), "a device; must be"),
    "an address": (("path,label\n" + GOOD + "http://x/a.png,cat\n").encode(), "no such file"),
    "a home": (("path,label\n" + GOOD + "~/a.png,cat\n").encode(), "no such file"),
    "an unknown split": (_split("dev"), "'dev'"),
    "a split with control characters": (
        _split("\x1b[2J"), "split '\\\\x1b[2J'"),
    "a class only in test": (
        _split("train") + b"test/cat/0.png,eel,test\n",
        "split test, class 'eel': no image for training has it"),
    "no training images": (_split("test"), "no image for training"),
    "an image a class": (b"path,label\ntrain/cat/0.png,cat\ntrain/dog/0.png,dog\n", "give more"),
    "JSON": (b'[{"path": "a.png", "label": "cat"}]', "column 'path': is missing"),
    "a zip file": (b"PK\x03\x04" + bytes(range(256)) * 9, ""),
    "a picture": (png(0), ""),
}  # fmt: skip

FINE: dict[str, bytes] = {
    "a byte order mark": ("\ufeffpath,label\n" + GOOD).encode(),
    "line ends of Windows": ("path,label\n" + GOOD).replace("\n", "\r\n").encode(),
    "line ends of old Macs": ("path,label\n" + GOOD).replace("\n", "\r").encode(),
    "empty lines": ("path,label\n\n\n" + GOOD.replace("\n", "\n\n")).encode(),
    "spaces around values": ("path,label\n" + GOOD.replace(",", " , ")).encode(),
    "all quoted": b'"path","label"\n' + "".join(
        f'"{line.replace(",", chr(34) + "," + chr(34))}"\n' for line in GOOD.splitlines()
    ).encode(),
    "more columns": ("path,label,note\n" + GOOD.replace("\n", ',"a, b"\n')).encode(),
    "no line end at the end": ("path,label\n" + GOOD).rstrip().encode(),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for name, (content, text) in WRONG.items():
        yield Case(f"CSV: {name}", partial(_wrong, content, text))
    for name, content in FINE.items():
        yield Case(f"CSV: {name} is read", partial(_fine, content))
    for name, path_of in OUTSIDE.items():
        yield Case(f"CSV: {name} is read and said", partial(_outside, path_of))
    yield Case("CSV: of just too many bytes", _large, "high")
    yield Case("CSV: 20,000 faults are counted", _many)
    yield Case("CSV: columns of one name", _same_columns)
    yield Case("CSV: pretraining images that are not asked for are said", _pretrain)
    for kind in ("pipe", "link to /dev/zero"):
        yield Case(f"CSV: a row that is: {kind}", partial(_special, kind), "high", seconds=20)


def _wrong(content: bytes, text: str, folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "images.csv").write_bytes(content)
    refused(lambda: csv_images(data / "images.csv"), text, "images.csv")


def _fine(content: bytes, folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "images.csv").write_bytes(content)
    if sum(through(csv_images(data / "images.csv"), folder).counts.values()) != 8:
        raise FaultError("not all images were read")


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "a path that climbs out": lambda folder: "../other.png",
    "a path that climbs out and in": lambda folder: "train/../../pets/../other.png",
    "an absolute path": lambda folder: str(folder / "other.png"),
}


def _outside(path_of: Callable[[Path], str], folder: Path) -> None:
    data = fill(folder / "pets")
    (folder / "other.png").write_bytes(png(9))
    images = csv_images(table(data, {path_of(folder): "cat"}))
    told = [str(remark) for remark in images.remarks]
    if told != [f"1 images lie outside of the CSV file's folder: {folder / 'other.png'}"]:
        raise FaultError(f"said {told}")
    if sum(through(images, folder).counts.values()) != 13:
        raise FaultError("not all images were read")


def _large(folder: Path) -> None:
    with (folder / "images.csv").open("wb") as file:
        file.write(b"path,label\n")
        file.truncate(MAX_TABLE_BYTES + 1)
    refused(lambda: csv_images(folder / "images.csv"), f"must have at most {MAX_TABLE_BYTES}")


def _many(folder: Path) -> None:
    rows = "".join(f"{n}.png,cat\n" for n in range(20_000))
    (folder / "images.csv").write_text("path,label\n" + rows)
    refused(lambda: csv_images(folder / "images.csv"), "20000 faults", "and 19980 more")


def _same_columns(folder: Path) -> None:
    entry = {"source": "csv_file", "path": "a.csv", "templates": TEMPLATES, "label_column": "path"}
    refused(lambda: read_source("pets", entry), "must be three")


def _pretrain(folder: Path) -> None:
    data = fill(folder / "pets", {"more/a.png": png(5)})
    text = GOOD.replace("\n", ",train\n") + "more/a.png,cat,pretrain\n"
    (data / "images.csv").write_text("path,label,split\n" + text)
    told = [str(remark) for remark in csv_images(data / "images.csv").remarks]
    if told != ["1 splits are left out, as pretrain_per_class is 0: pretrain (1 images)"]:
        raise FaultError(f"said {told}")


def _special(kind: str, folder: Path) -> None:
    data = fill(folder / "pets")
    special(kind, data / "x.png")
    refused(lambda: csv_images(table(data, {"x.png": "cat"})), "line 14: x.png: is a named pipe")
    os.unlink(data / "x.png")
