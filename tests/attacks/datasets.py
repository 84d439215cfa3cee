"""The room of data sets: a hub that lies, files of it that are broken, pins and catalogues."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from tests.attacks.cases import Case, FaultError, refused
from tests.hub_server import REVISION, Fault, serving, table, toy, write_entry


def cases() -> Iterator[Case]:
    """Give all cases of the room."""
    for name, change in _LISTINGS.items():
        run = partial(_a_listing_is_refused, change)
        yield Case(f"a hub's listing with {name} is refused", run, "critical")
    for name, (faults, told) in _ANSWERS.items():
        run = partial(_an_answer_is_refused, faults, told)
        yield Case(f"a hub that answers {name} is refused", run, "high")
    for kind, suffix in (("parquet", "image"), ("webdataset", "jpg")):
        run = partial(_mutated_rows, kind, suffix)
        yield Case(f"changed bytes of a {kind} file are refused or read", run, "high", 200)
    yield Case("changed bytes of a pin are refused or read", _mutated_pins, "high")
    yield Case(
        "changed bytes of a catalogue's file are refused or read", _mutated_entries, "medium"
    )
    for name, change in _PINS.items():
        run = partial(_a_pin_is_refused, change)
        yield Case(f"a pin with {name} is refused", run, "critical")
    for name, entry in _ENTRIES.items():
        yield Case(f"an entry with {name} is refused", partial(_an_entry_is_refused, entry), "low")


def _published(folder: Path) -> Any:
    """Make the catalogue that of the data set toy, and permit connections to this machine."""
    from huggingface_hub import constants

    from adamerge_core.vision.datasets import hub_download, published

    write_entry(folder / "catalogue", 20, 10)
    published.CATALOGUE = folder / "catalogue"
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DOWNLOAD_TIMEOUT = 1
    hub_download.WAITS = (0.0,)
    return published.published_dataset("toy")


# --- a hub that lies ----------------------------------------------------------------------------


def _file(**values: Any) -> dict[str, Any]:
    lfs = {"oid": "a" * 64, "size": 3, "pointerSize": 130}
    return {
        "type": "file",
        "path": "data/train-x",
        "size": 3,
        "oid": "b" * 40,
        "lfs": lfs,
        **values,
    }


_LISTINGS: dict[str, Any] = {
    "a path that climbs": [_file(path="data/train-/../../../x")],
    "a path from the root": [_file(path="/data/train-x")],
    "a path with a null byte": [_file(path="data/train-\0")],
    "a path with a line end": [_file(path="data/train-\nx")],
    "a path with backslashes": [_file(path="data/train-\\..\\x")],
    "a digest that climbs": [_file(lfs={"oid": "../" * 20 + "abcd", "size": 3, "pointerSize": 1})],
    "a size below 0": [_file(size=-1)],
    "a size that is text": [_file(size="3")],
    "no digest": [_file(lfs=None, oid="")],
    "a path that is a number": [_file(path=3)],
    "no files": [],
    "no list": {"error": "no"},
    "a list of numbers": [1, 2],
    "fields that are missing": [{"type": "file"}],
    "the same parts twice": [_file(path="data/train-00000-of-00002.parquet")] * 2,
}


def _a_listing_is_refused(listing: Any, folder: Path) -> None:
    from adamerge_core.vision.datasets.hub_listing import list_hub_files

    published = _published(folder)
    with serving(toy()) as hub:
        hub.listing = listing
        refused(lambda: list_hub_files(published, None, hub.address), "toys/toy at ")
    if [path.name for path in folder.iterdir()] != ["catalogue"]:
        raise FaultError("something was written")


_ANSWERS: dict[str, tuple[list[Fault], str]] = {
    "other bytes": ([Fault(wrong=True)], "not the file"),
    "a web page": ([Fault(html=True)], "web page"),
    "that access is forbidden": ([Fault(status=403)], "refuses access"),
    "that there is no such file": ([Fault(status=404)], "no such"),
    "that it is busy": ([Fault(status=429)] * 5, "too many requests"),
    "that it is broken": ([Fault(status=500)] * 5, "HTTP 500"),
    "nothing": ([Fault(cut_after=0)] * 5, "hub"),
    "late": ([Fault(seconds=3)] * 5, "gave nothing for 1 s"),
    "a redirection without a place": ([Fault(status=302)] * 5, ""),
}


def _an_answer_is_refused(faults: list[Fault], told: str, folder: Path) -> None:
    from adamerge_core.vision.datasets.hub_download import fetch
    from adamerge_core.vision.datasets.hub_files import HubCache
    from adamerge_core.vision.datasets.hub_listing import list_hub_files

    published = _published(folder)
    with serving(toy()) as hub:
        pin = list_hub_files(published, None, hub.address)
        cache = HubCache.of(pin, folder / "cache")
        hub.faults.extend(faults)
        refused(lambda: fetch(cache, pin.all_files(), None, hub.address), told)
        hub.faults.clear()
        fetch(cache, pin.all_files(), None, hub.address)
    if faults := cache.faults(pin.all_files()):
        raise FaultError(f"afterwards: {faults}")


# --- files that are broken ----------------------------------------------------------------------


def _changed(content: bytes, dice: random.Random) -> bytes:
    """Change, cut out or repeat some bytes."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data))
        kind = dice.randrange(3)
        if kind == 0:
            data[place] = dice.randrange(256)
        elif kind == 1:
            del data[place : place + dice.randint(1, 40)]
        else:
            data[place:place] = data[place : place + dice.randint(1, 40)]
    return bytes(data)


def _tried(read: Callable[[], Any]) -> None:
    with contextlib.suppress(InputError):
        read()


def _mutated_rows(kind: str, image: str, folder: Path) -> int:
    from adamerge_core.vision.datasets.hub_rows import HubTable
    from adamerge_core.vision.datasets.published import HubFiles, Labels

    label = "label" if kind == "parquet" else "cls"
    hub = HubFiles("toys/toy", kind, image, label, {})
    good = table([0, 1] * 10, 2) if kind == "parquet" else _tar()
    rows = HubTable(hub, Labels((0,), {}), 2, [("x", folder / "x")])
    dice = random.Random(0)
    for _ in range(2000):
        (folder / "x").write_bytes(_changed(good, dice))
        _tried(lambda: list(rows.images(np.ones(len(rows.labels()), dtype=bool))))
    return 2000


def _tar() -> bytes:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index in range(6):
            for suffix, data in (("cls", b"%d" % (index % 2)), ("jpg", b"\xff\xd8" + bytes(90))):
                member = tarfile.TarInfo(f"s{index}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _pin() -> dict[str, Any]:
    file = {"path": "data/x", "bytes": 3, "digest": "a" * 64}
    files = {"train": [file], "test": [file]}
    return {"dataset": "toy", "hub_id": "toys/toy", "revision": REVISION, "files": files}


def _mutated_pins(folder: Path) -> int:
    from adamerge_core.vision.datasets.hub_files import HubCache, read_pin

    good, dice = json.dumps(_pin()).encode(), random.Random(0)
    for _ in range(1000):
        (folder / "toy.json").write_bytes(_changed(good, dice))
        try:
            cache = HubCache.of(read_pin(folder / "toy.json"), folder / "cache")
        except InputError:
            continue
        for file in cache.pin.all_files():
            for path in (cache.path(file), cache.content(file)):
                if not path.resolve().is_relative_to((folder / "cache").resolve()):
                    raise FaultError(f"reads {path}")
    return 1000


def _mutated_entries(folder: Path) -> int:
    from adamerge_core.vision.datasets.published import read_published

    write_entry(folder, 20, 10)
    good, dice = (folder / "toy.yaml").read_bytes(), random.Random(0)
    for _ in range(1000):
        (folder / "toy.yaml").write_bytes(_changed(good, dice))
        _tried(lambda: read_published(folder / "toy.yaml"))
    return 1000


_PINS: dict[str, dict[str, Any]] = {
    "a revision that climbs": {"revision": "../../../../x"},
    "a repository that climbs": {"hub_id": "../../x"},
    "another data set": {"dataset": "mnist"},
    "no files": {"files": {}},
    "files that are text": {"files": "x"},
    "a path that climbs": {
        "files": {s: [{"path": "../x", "bytes": 3, "digest": "a" * 64}] for s in ("train", "test")}
    },
    "a digest that climbs": {
        "files": {
            s: [{"path": "x", "bytes": 3, "digest": "../" * 21 + "x"}] for s in ("train", "test")
        }
    },
}


def _a_pin_is_refused(change: dict[str, Any], folder: Path) -> None:
    from adamerge_core.vision.datasets.registry import read_source

    _published(folder)
    (folder / "pins").mkdir()
    (folder / "pins" / "toy.json").write_text(json.dumps(_pin() | change))
    entry = {"source": "hub", "dataset": "toy", "cache": "cache"}
    refused(lambda: read_source("x", entry).images("x"), "adamerge data ")


_ENTRIES: dict[str, dict[str, Any]] = {
    "a data set that climbs": {"source": "hub", "dataset": "../toy"},
    "no data set": {"source": "hub"},
    "a data set that is a list": {"source": "hub", "dataset": ["mnist"]},
    "a branch as revision": {"source": "hub", "dataset": "mnist", "revision": "main"},
    "an empty cache": {"source": "hub", "dataset": "mnist", "cache": " "},
    "too many images": {"source": "hub", "dataset": "mnist", "train": 10**9},
    "no image": {"source": "hub", "dataset": "mnist", "val": 0},
    "a seed below 0": {"source": "local_copy", "dataset": "mnist", "path": "x", "seed": -1},
    "no path": {"source": "local_copy", "dataset": "mnist"},
    "an empty path": {"source": "local_copy", "dataset": "mnist", "path": ""},
    "letters for digits": {"source": "local_copy", "dataset": "emnist", "path": "x"},
}


def _an_entry_is_refused(entry: dict[str, Any], folder: Path) -> None:
    from adamerge_core.vision.datasets.registry import read_source

    refused(lambda: read_source("x", entry), "datasets.x: 1 fault")
