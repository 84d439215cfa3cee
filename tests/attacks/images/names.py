"""Names of files and classes: carried through to the last file and log, or refused by a rule."""

import io
import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.vision.archive import open_archive
from adamerge_core.vision.names import printable
from tasks import download, prepare
from tasks.graph import paths
from tasks.running.work import Options, Work
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import (
    TEMPLATES,
    csv_images,
    fill,
    folder_images,
    listing,
    png,
    table,
    through,
)

FILES = {
    "a variable of DVC": "${x}",
    "a variable of a shell": "$HOME$(touch ran)`touch ran`",
    "DEL": "a\x7fb",
    "U+0085": "a\x85b",
    "U+2028": "a\u2028b",
    "a line end": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "an escape": "\x1b[2J\x1b[31m",
    "a bell": "a\x07",
    "right to left": "\u202egnp",
    "no width": "a\u200bb",
    "a byte order mark": "\ufeffa",
    "Arabic": "قطة",
    "Chinese": "猫",
    "an emoji": "🐈‍⬛",
    "an accent of its own": "e\u0301",
    "spaces around": "  a  ",
    "a quote": "a'b\"c",
    "a comma": "a,b",
    "a semicolon": "a;b",
    "a backslash": "a\\b",
    "braces": "{a}{}{0}%s%n",
    "a percent sign": "%2e%2e",
    "an option": "-rf",
    "a formula": "=cmd|' C calc'!A0",
    "markup": "<script>alert(1)",
    "a star": "*?[a]",
    "250 bytes": "a" * 246,
    "a name of Windows": "con",
    "a tilde": "~",
    "a hash": "#a",
    "a noncharacter": "a\uffff",
    "a private character": "\ue000",
}

CLASSES: dict[str, tuple[str, bool]] = {
    "a line end": ("a\nb", False),
    "DEL": ("a\x7f", False),
    "U+0085": ("a\x85b", False),
    "U+2028": ("a\u2028b", False),
    "an escape": ("\x1b[2J", False),
    "right to left mark": ("\u202egnp", False),
    "no width": ("a\u200bb", False),
    "spaces inside a long name": ("a" * 201, False),
    "spaces alone": ("   ", False),
    "a space before": (" cat", False),
    "a variable of DVC": ("${x}", True),
    "mathematics": ("$\\frac$", True),
    "braces": ("{}{0}{a.__class__}", True),
    "a percent sign": ("%s%n", True),
    "markup": ("<b>", True),
    "Arabic": ("قطة", True),
    "Chinese": ("猫", True),
    "an emoji": ("🐈", True),
    "a number": ("007", True),
    "a word of YAML": ("null", True),
    "a formula": ("=cmd()", True),
    "200 characters": ("a" * 200, True),
    "quotes": ("a'b\"c", True),
    "a backslash": ("a\\nb", True),
}


def cases() -> Iterator[Case]:
    for name, text in FILES.items():
        for source in ("image_folder", "csv_file"):
            yield Case(f"{source}: a file name with {name}", partial(_file, source, text))
    for name, (text, good) in CLASSES.items():
        yield Case(f"image_folder: a class name with {name}", partial(_class_folder, text, good))
        yield Case(f"csv_file: a label with {name}", partial(_label, text, good))
    for content in (b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\x80"):
        yield Case(f"a file named {content!r}", partial(_not_utf8, content, "train/cat/"))
        yield Case(f"a hidden file named {content!r}", partial(_not_utf8, content, "train/."))
    for name in ("a line end", "DEL", "U+0085", "a variable of DVC", "Chinese", "an escape"):
        yield Case(f"the stages, with {name}", partial(_stages, FILES[name]))
    alone = {
        "a class folder whose name is not UTF-8": _class_not_utf8,
        "a data folder below one whose name is not UTF-8": _root_not_utf8,
        "classes that Unicode calls the same": _two_forms,
        "labels that Unicode calls the same": _two_labels,
        "a class in two forms in train and test": _two_forms_of_splits,
        "files that Unicode calls the same": _two_files,
        "classes that differ in case are said": _two_cases,
        "files that differ in case": _files_of_two_cases,
        "a hundred unreadable files are counted, twenty named": _many,
    }
    for name, run in alone.items():
        yield Case(name, run)


def _file(source: str, text: str, folder: Path) -> None:
    """One that is good and one that is not, whose name is told."""
    data = fill(folder / "pets", {f"train/cat/{text}.png": png(5)})
    name = f"train/cat/{text}.png"
    through(listing(source, data, name=name, label="cat")(), folder)
    with open_archive(folder / "out" / "images.zip") as archive:
        if printable(name) not in [entry.name for entry in archive.entries()]:
            raise FaultError(f"{printable(name)} is not in {list(archive.entries())}")
    (data / name).write_bytes(b"no image")
    images = listing(source, data, name=name, label="cat")
    error = refused(
        lambda: through(images(), folder), f"{printable(name)} (split t", ", class cat): "
    )
    lines = str(error).splitlines()
    if len(lines) != 2 or not all(line.isprintable() for line in lines):
        raise FaultError(f"the message is {lines}")
    if Path("ran").exists():
        raise FaultError("a shell ran it")


def _class_folder(text: str, good: bool, folder: Path) -> None:
    files = {f"{split}/{text}/{n}.png": png(n) for split in ("train", "test") for n in range(3)}
    data = folder / "pets"
    _class(lambda: folder_images(fill(data, files)), text, good, folder)


def _label(text: str, good: bool, folder: Path) -> None:
    data = fill(folder / "pets", {f"more/{n}.png": png(50 + n) for n in range(5)})
    if text != text.strip():  # the spaces around a value of a table are no part of it
        good, text = bool(text.strip()), text
    rows = table(data, {f"more/{n}.png": text for n in range(5)})
    _class(lambda: csv_images(rows), text.strip(), good, folder)


def _class(images: Any, text: str, good: bool, folder: Path) -> None:
    if not good:
        error = refused(lambda: through(images(), folder), "label" if not text else "class")
        if not all(line.isprintable() for line in str(error).splitlines()):
            raise FaultError(f"the message is {error}")
        return
    through(images(), folder)
    with open_archive(folder / "out" / "images.zip") as archive:
        if text not in archive.classes:
            raise FaultError(f"classes are {archive.classes}")


def _not_utf8(content: bytes, place: str, folder: Path) -> None:
    data = fill(folder / "pets")
    Path(
        os.fsdecode(
            bytes(data / place) + (b"/" if place.endswith("/") else b"") + content + b".png"
        )
    ).write_bytes(png(0))
    error = refused(lambda: folder_images(data), "its name is not UTF-8; rename it", "\\x")
    str(error).encode()


def _class_not_utf8(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "train" / "cat").rename(os.fsdecode(bytes(data) + b"/train/c\xe4t"))
    str(refused(lambda: folder_images(data), "c\\xe4t: its name is not UTF-8")).encode()


def _root_not_utf8(folder: Path) -> None:
    data = Path(os.fsdecode(bytes(folder) + b"/d\xe4ta"))
    fill(data)
    str(refused(lambda: folder_images(data), "path", "d")).encode()


def _two_forms(folder: Path) -> None:
    files = {
        f"{s}/{c}/{n}.png": png(n)
        for s in ("train", "test")
        for n in range(3)
        for c in ("caf\u00e9", "cafe\u0301")
    }
    refused(lambda: folder_images(fill(folder / "pets", files)), "look the same", "00E9", "0301")


def _two_labels(folder: Path) -> None:
    data = fill(folder / "pets", {f"more/{n}.png": png(n) for n in range(6)})
    rows = {f"more/{n}.png": "caf\u00e9" if n % 2 else "cafe\u0301" for n in range(6)}
    refused(lambda: csv_images(table(data, rows)), "look the same", "00E9", "0301")


def _two_forms_of_splits(folder: Path) -> None:
    files = {f"train/caf\u00e9/{n}.png": png(n) for n in range(3)}
    files["test/cafe\u0301/0.png"] = png(9)
    refused(lambda: folder_images(fill(folder / "pets", files)), "look the same", "test")


def _two_files(folder: Path) -> None:
    files = {f"train/cat/{unicodedata.normalize(form, 'é')}.png": png(3) for form in ("NFC", "NFD")}
    if sum(through(folder_images(fill(folder / "pets", files)), folder).counts.values()) != 14:
        raise FaultError("one is missing")


def _two_cases(folder: Path) -> None:
    files = {f"{s}/Cat/{n}.png": png(n) for s in ("train", "test") for n in range(3)}
    images = folder_images(fill(folder / "pets", files))
    if "2 classes differ in upper and lower case alone: Cat, cat" not in map(str, images.remarks):
        raise FaultError(f"said {images.remarks}")


def _files_of_two_cases(folder: Path) -> None:
    data = fill(folder / "pets", {"train/cat/A.PNG": png(1), "train/cat/a.png": png(2)})
    if sum(through(folder_images(data), folder).counts.values()) != 14:
        raise FaultError("one is missing")


def _stages(text: str, folder: Path) -> None:
    """download and prepare with what they print, as UTF-8 and as JSON."""
    data = fill(folder / "pets", {f"train/cat/{text}.png": b"no image", f"train/cat/.{text}": b""})
    entry = {"source": "image_folder", "path": str(data), "templates": TEMPLATES}
    params: dict[str, Any] = {"datasets": {"pets": entry}, "prepare": {"unreadable": "skip"}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    out = io.StringIO()
    with redirect_stdout(out):
        download.run(Work("download_pets", Options(dataset="pets"), params))
        prepare.run(
            Work(
                "prepare@pets-8", Options(dataset="pets", size="8", splits="train-val-test"), params
            )
        )
    printed = out.getvalue()
    printed.encode()
    json.dumps(printed)
    for told in (
        "pets: 13 images of 2 classes",
        "pets: 1 hidden files and folders are left out: " + printable(f"train/cat/.{text}"),
        "skipped: " + printable(f"train/cat/{text}.png"),
    ):
        if told not in printed.splitlines() and not any(
            line.startswith(told) for line in printed.splitlines()
        ):
            raise FaultError(f"lacks {told!r}: {printed}")
    if json.loads(paths.classes("pets").read_text())["classes"] != ["cat", "dog"]:
        raise FaultError("other classes")


def _many(folder: Path) -> None:
    data = fill(folder / "pets", {f"train/cat/x{n}.png": b"no image" for n in range(100)})
    error = refused(lambda: through(folder_images(data), folder), "100 faults", "and 80 more")
    if len(str(error).splitlines()) != 22:
        raise FaultError(str(error))
