"""Files that are no files, or never end, wherever a file is read."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.vision.archive import open_archive
from adamerge_core.vision.datasets import read_source
from adamerge_core.vision.images import open_images, open_labels
from adamerge_core.vision.preparation import prepare_archive
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.images.files import (
    SIZE,
    SPECIAL,
    TEMPLATES,
    as_nobody,
    csv_images,
    fill,
    folder_images,
    listing,
    places,
    png,
    special,
    through,
)

OPENERS: dict[str, Callable[[Path], Any]] = {
    "an archive": lambda path: open_archive(path).__enter__(),
    "an archive to prepare": lambda path: prepare_archive(path, SIZE, places(path.parent)),
    "prepared images": open_images,
    "prepared labels": open_labels,
    "a CSV file": csv_images,
}


def cases() -> Iterator[Case]:
    for name, run in _special().items():
        yield Case(name, run, "high", seconds=20)
    for place in ("train", "train/cat"):
        yield Case(f"a folder without permission: {place}", partial(_closed_folder, place))
    links = {
        "a link to a regular file is read": _good_link,
        "a data folder that is a link is read": _linked_folder,
        "a class folder that is a link is read and said": _linked_class,
        "a class folder that is a link to the split above it": _looping_class,
        "a loop of links in a class folder": _loop,
        "a link out of the data folder to no image": _secret,
    }
    for name, run in links.items():
        yield Case(name, run)
    for kind in ("pipe", "folder", "link to nothing", "link to itself"):
        yield Case(f"a data folder that is: {kind}", partial(_data_folder, kind), seconds=20)


def _special() -> dict[str, Callable[[Path], None]]:
    """What is no regular file, in the place of everything that is read, by what it is called."""
    runs: dict[str, Callable[[Path], None]] = {}
    for kind in SPECIAL:
        for source in ("image_folder", "csv_file"):
            runs[f"{source}: an image that is: {kind}"] = partial(_image, source, kind)
        runs[f"replaced after it was listed by: {kind}"] = partial(_replaced, kind)
        for name, opener in OPENERS.items():
            runs[f"{name} that is: {kind}"] = partial(_opened, opener, kind)
    for kind in ("pipe", "link to /dev/zero", "link to itself", "link to nothing", "socket"):
        runs[f"a hidden file that is: {kind}"] = partial(_hidden, kind)
    return runs


def _image(source: str, kind: str, folder: Path) -> None:
    data = fill(folder / "pets")
    special(kind, data / "train" / "cat" / "x.png")
    images = listing(source, data, name="train/cat/x.png", label="cat")
    if kind == "no permission":
        as_nobody(folder)
    told = ["train/cat/x.png"]
    if source == "image_folder" and kind == "folder":
        (data / "train" / "cat" / "x.png" / "y.png").write_bytes(png(0))
        told.append("move them up")
    refused(lambda: through(images(), folder), *told)


def _replaced(kind: str, folder: Path) -> None:
    """Between the listing and the reading; the other fault is listed as well."""
    data = fill(folder / "pets")
    images = folder_images(data)
    for name in ("train/cat/1.png", "test/dog/0.png"):
        (data / name).unlink()
        special(kind, data / name)
    (folder / "out").mkdir()
    if kind == "no permission":
        as_nobody(folder)
    if kind == "empty":
        refused(lambda: through(images, folder), "train/cat/1.png", "test/dog/0.png", "is empty")
        return
    refused(lambda: through(images, folder), "train/cat/1.png", "test/dog/0.png", "2 faults")
    if any((folder / "out").iterdir()):
        raise FaultError(f"left behind: {list((folder / 'out').iterdir())}")


def _opened(opener: Callable[[Path], Any], kind: str, folder: Path) -> None:
    special(kind, folder / "x")
    if kind == "no permission":
        as_nobody(folder)
    refused(lambda: opener(folder / "x"), str(folder / "x"))


def _hidden(kind: str, folder: Path) -> None:
    """DVC reads these as well: they are found before it starts."""
    data = fill(folder / "pets")
    special(kind, data / "train" / ".hidden")
    source = read_source(
        "pets", {"source": "image_folder", "path": str(data), "templates": TEMPLATES}
    )
    faults = source.file_faults()
    if len(faults) != 1 or "train/.hidden" not in faults[0]:
        raise FaultError(f"faults: {faults}")


def _closed_folder(place: str, folder: Path) -> None:
    data = fill(folder / "pets")
    as_nobody(folder)
    (data / place).chmod(0)
    refused(lambda: folder_images(data), f"pets/{place}", "Permission denied")


def _good_link(folder: Path) -> None:
    data = fill(folder / "pets")
    (folder / "other.png").write_bytes(png(77))
    (data / "train" / "cat" / "x.png").symlink_to(folder / "other.png")
    if sum(through(folder_images(data), folder).counts.values()) != 13:
        raise FaultError("the link was not read")


def _linked_folder(folder: Path) -> None:
    fill(folder / "real")
    (folder / "pets").symlink_to("real")
    if sum(through(folder_images(folder / "pets"), folder).counts.values()) != 12:
        raise FaultError("the folder was not read")


def _linked_class(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "train" / "dog").rename(folder / "dogs")
    (data / "train" / "dog").symlink_to(folder / "dogs")
    images = folder_images(data)
    if sum(through(images, folder).counts.values()) != 12:
        raise FaultError("the link was not read")
    if not any("train/dog" in str(remark) for remark in images.remarks):
        raise FaultError(f"not said: {images.remarks}")


def _looping_class(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "train" / "eel").symlink_to(".")
    refused(lambda: folder_images(data), "train/eel")


def _loop(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "train" / "cat" / "up").symlink_to("..")
    (data / "train" / "cat" / "down").symlink_to("up")
    refused(lambda: folder_images(data), "train/cat/up", "train/cat/down", "move them up")


def _secret(folder: Path) -> None:
    data = fill(folder / "pets")
    (data / "train" / "cat" / "x.png").symlink_to("/etc/passwd")
    error = refused(lambda: through(folder_images(data), folder), "train/cat/x.png")
    if "root:x" in str(error):
        raise FaultError("the message tells the file's content")


def _data_folder(kind: str, folder: Path) -> None:
    special(kind, folder / "pets")
    refused(lambda: folder_images(folder / "pets"), str(folder / "pets"), "train")
