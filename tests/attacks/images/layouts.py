"""Folders that are not laid out as they should: counted and said, or an error."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import csv_images, fill, folder_images, png, table, through

IMAGE = png(1)

SAID: dict[str, tuple[Mapping[str, bytes], str]] = {
    "unknown suffixes": (
        {f"train/cat/{n}.heic": b"" for n in range(7)},
        "7 files have none of the suffixes .png, .jpg",
    ),
    "no suffix": ({"train/cat/photo": IMAGE}, "1 files have none of the suffixes"),
    "notes beside images": ({"train/cat/notes.txt": b"x"}, "left out: train/cat/notes.txt"),
    "a suffix in capitals is an image": ({"train/cat/x.JPG": IMAGE}, ""),
    "two suffixes": ({"train/cat/x.png.bak": IMAGE}, "train/cat/x.png.bak"),
    "hidden files": (
        {"train/cat/.DS_Store": b"x", "train/.DS_Store": b"x", ".DS_Store": b"x"},
        "3 hidden files and folders are left out: .DS_Store, ",
    ),
    "a Mac's second file of an image": ({"train/cat/._0.png": b"\0\5\x16\7"}, "train/cat/._0.png"),
    "a hidden class folder": ({"train/.ipynb_checkpoints/x.png": IMAGE}, "train/.ipynb_check"),
    "a Mac's folder": ({"__MACOSX/train/cat/x.png": IMAGE}, "__MACOSX"),
    "a Windows file": ({"train/cat/Thumbs.db": b"x"}, "train/cat/Thumbs.db"),
    "another split": ({"validation/cat/x.png": IMAGE}, "1 folders are none of train, val, test"),
    "a split in capitals": ({"Val/cat/x.png": IMAGE}, "left out: Val"),
    "a list beside splits": (
        {"labels.csv": b"x"},
        "1 files beside the splits are left out: labels",
    ),
    "an image beside splits": ({"x.png": IMAGE}, "1 files beside the splits are left out: x.png"),
    "a list beside classes": ({"train/list.csv": b"x"}, "files beside the class folders are left"),
    "a folder of notes": (
        {"train/cat/notes/a.txt": b"x"},
        "without images, are left out: train/cat",
    ),
    "a split pretrain that is not asked for": (
        {"pretrain/cat/x.png": IMAGE},
        "1 splits are left out, as pretrain_per_class is 0: pretrain",
    ),
    "a class without test images": (
        {f"train/eel/{n}.png": png(n) for n in range(3)},
        "1 classes have no image in the split test that is given: eel",
    ),
    "classes without val images": (
        {"val/cat/x.png": IMAGE},
        "1 classes have no image in the split val that is given: dog",
    ),
}

WRONG: dict[str, tuple[Mapping[str, bytes], str]] = {
    "images in subfolders": (
        {"train/cat/deep/a.png": IMAGE, "train/cat/deep/er/b.png": IMAGE},
        "train/cat/deep: holds 2 images below a class folder; move them up into it",
    ),
    "a class only in test": (
        {"test/eel/a.png": IMAGE},
        "split test, class 'eel': no image for training has it",
    ),
    "a class only in val": (
        {"val/eel/a.png": IMAGE},
        "split val, class 'eel': no image for training has it",
    ),
    "a class of another spelling in test": ({"test/Cat/a.png": IMAGE}, "split test, class 'Cat'"),
    "images outside class folders": (
        {"train/a.png": IMAGE},
        "train/a.png: an image outside of a class folder; move it into one",
    ),
    "a class of other suffixes": (
        {"train/eel/a.heic": IMAGE},
        "split train, class eel: no image in",
    ),
    "a class of hidden files": ({"test/eel/.a.png": IMAGE}, "split test, class eel: no image in"),
}

PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "a negative seed": ({"seed": -1}, "seed = -1: must be at least 0"),
    "a seed that is text": ({"seed": "1"}, "seed = '1'"),
    "a seed that is true": ({"seed": True}, "seed = True"),
    "a share of 0": ({"val_fraction": 0.0}, "val_fraction = 0.0: must be above 0"),
    "a share that is no number": ({"val_fraction": float("nan")}, "val_fraction = nan"),
    "an endless share": ({"val_fraction": float("inf")}, "val_fraction = inf"),
    "a share above 1": ({"val_fraction": 1e300}, "val_fraction = 1e+300: must be above 0"),
    "no prompt": ({"templates": []}, "templates: is empty"),
    "a prompt without a place": ({"templates": ["a"]}, "must hold {} once"),
    "a prompt that reaches in": ({"templates": ["{0.__class__}"]}, "must hold {} once"),
    "a prompt of two lines": ({"templates": ["a\n{}"]}, "must be printable"),
    "a prompt that is a number": ({"templates": [3]}, "templates"),
    "an empty path": ({"path": ""}, "path = ''"),
    "a path with NUL": ({"path": "a\0b"}, "path = 'a\\x00b'"),
    "a path that is no text": ({"path": 3}, "path = 3"),
    "all for pretraining": ({"pretrain_per_class": 10**9}, ""),
}


def cases() -> Iterator[Case]:
    for name, (files, text) in SAID.items():
        yield Case(f"{name}: said", partial(_said, files, text))
    for name, (files, text) in WRONG.items():
        yield Case(f"{name}: an error", partial(_wrong, files, text))
    for name, (parameters, text) in PARAMETERS.items():
        for read, data in (("image_folder", _folder), ("csv_file", _table)):
            yield Case(f"{read} with {name}", partial(_parameters, data, parameters, text))
    yield Case("an empty class folder", _empty_class)
    yield Case("an empty folder", _empty)
    yield Case("a folder of images without splits", _flat)
    yield Case("all faults at once", _all)
    yield Case("long lists are cut, with a count", _cut)


def _said(files: Mapping[str, bytes], text: str, folder: Path) -> None:
    images = folder_images(fill(folder / "pets", files))
    told = [str(remark) for remark in images.remarks]
    if text not in "\n".join(told) or bool(text) != bool(told):
        raise FaultError(f"said {told}")
    through(images, folder)


def _wrong(files: Mapping[str, bytes], text: str, folder: Path) -> None:
    refused(lambda: folder_images(fill(folder / "pets", files)), text)


def _folder(folder: Path, /, **parameters: Any) -> Any:
    return folder_images(fill(folder / "pets"), **parameters)


def _table(folder: Path, /, **parameters: Any) -> Any:
    return csv_images(table(fill(folder / "pets")), **parameters)


def _parameters(data: Any, parameters: dict[str, Any], text: str, folder: Path) -> None:
    if text:
        refused(lambda: data(folder, **parameters), text)
    else:
        through(data(folder, **parameters), folder)


def _empty_class(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "test" / "cat" / "0.png").unlink()
    (data / "test" / "cat" / "1.png").unlink()
    refused(lambda: folder_images(data), "split test, class cat: no image in")


def _empty(folder: Path) -> None:
    (folder / "pets").mkdir()
    refused(lambda: folder_images(folder / "pets"), "split train: no folder", "split test: no f")


def _flat(folder: Path) -> None:
    for n in range(5):
        path = folder / "pets" / "cat" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(n))
    refused(lambda: folder_images(folder / "pets"), "split train: no folder", "split test: no f")


def _all(folder: Path) -> None:
    chosen = [WRONG[name] for name in WRONG if not name.startswith("a class of")]
    files = {name: content for each, _ in chosen for name, content in each.items()}
    told = [text for _, text in chosen]
    refused(lambda: folder_images(fill(folder / "pets", files)), *told)


def _cut(folder: Path) -> None:
    files = {f"train/cat/{n}.txt": b"" for n in range(5000)}
    (remark,) = folder_images(fill(folder / "pets", files)).remarks
    if not str(remark).startswith("5000 files") or not str(remark).endswith("and 4995 more"):
        raise FaultError(str(remark))
