"""The source `hub`, against a hub on this machine: fetching, its faults, and what is read."""

import collections
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import REVISION, Fault, Hub, digest, png, serving, table, toy, write_entry

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import write_archive
from adamerge_core.vision.datasets import hub as source_file
from adamerge_core.vision.datasets import hub_download, published
from adamerge_core.vision.datasets.hub_download import fetch
from adamerge_core.vision.datasets.hub_files import HubCache, Pin, pin_path, read_pin, write_pin
from adamerge_core.vision.datasets.hub_listing import list_hub_files
from adamerge_core.vision.datasets.registry import read_source
from adamerge_core.vision.preparation import prepare_archive
from tasks.graph.code import sources as graph_code

TRAIN = "data/train-00000-of-00002.parquet"
COUNTS = {"train": 18, "val": 2, "test": 10}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A catalogue with the data set toy, in a folder, and connections that fail at once."""
    from huggingface_hub import constants

    write_entry(tmp_path / "catalogue", 20, 10)
    monkeypatch.setattr(published, "CATALOGUE", tmp_path / "catalogue")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(hub_download, "WAITS", (0.0, 0.0))
    monkeypatch.chdir(tmp_path)
    published.published_dataset.cache_clear()
    yield tmp_path
    published.published_dataset.cache_clear()


def listed(hub: Hub) -> Pin:
    return list_hub_files(published.published_dataset("toy"), None, hub.address)


def fetched(hub: Hub, folder: Path) -> HubCache:
    pin = listed(hub)
    write_pin(pin_path("toy"), pin)
    cache = HubCache.of(pin, folder)
    fetch(cache, pin.all_files(), None, hub.address)
    return cache


def read(**entry: object) -> list[tuple[str, int, bytes, str]]:
    source = read_source("x", {"source": "hub", "dataset": "toy", "cache": "cache", **entry})
    images = source.images("x").images
    return [(each.split, each.label, each.content, each.name) for each in images]


def test_fetches_what_is_used_once_and_reads_it(place: Path) -> None:
    with serving(toy()) as hub:
        cache = fetched(hub, place / "cache")
        assert read_pin(pin_path("toy")) == cache.pin
        assert cache.pin.revision == REVISION
        sent = dict(hub.sent)
        assert sorted(sent) == sorted(file.path for file in cache.pin.all_files())
        assert fetch(cache, cache.pin.all_files(), None, hub.address) == []
        assert hub.sent == sent
    found = read()
    assert collections.Counter(split for split, *_ in found) == COUNTS
    by_name = {name: (label, content) for _, label, content, name in found}
    assert len(by_name) == 30
    assert by_name[f"{TRAIN} row 3"] == (1, png(3))
    assert read() == found
    assert read(seed=1) != found
    few = read(train=3, val=4, test=5, pretrain=6)
    counts = {"pretrain": 6, "train": 3, "val": 4, "test": 5}
    assert collections.Counter(split for split, *_ in few) == counts
    assert len({name for *_, name in few}) == 18


def test_images_become_an_archive_and_arrays(place: Path) -> None:
    write_cache(place, {"data/train-0": table([0, 1] * 10, 2), "data/test-0": table([0, 1] * 5, 2)})
    source = read_source("x", {"source": "hub", "dataset": "toy", "cache": "cache"})
    write_archive(place / "images.zip", source.images("x"))
    prepare_archive(
        place / "images.zip", 4, lambda split: (place / f"{split}.npy", place / f"{split}-y.npy")
    )
    images, labels = np.load(place / "test.npy"), np.load(place / "test-y.npy")
    assert images.shape == (10, 4, 4, 3)
    assert (images[:, 0, 0, 0] % 2 == labels).all()  # image i is of colour i, and of class i % 2
    code = graph_code(
        "adamerge_core.vision.datasets.hub", root=Path(hub_download.__file__).parents[3]
    )
    assert "adamerge_core/vision/datasets/hub_rows.py" in code
    assert "adamerge_core/vision/datasets/hub_download.py" not in code


def test_a_connection_that_breaks_goes_on_from_its_byte(place: Path) -> None:
    with serving(toy(padding=20_000)) as hub:
        hub.faults.extend([Fault(cut_after=50_000), Fault(cut_after=30_000)])
        fetched(hub, place / "cache")
        assert all(hub.sent[name] == len(hub.files[name]) for name in hub.sent)


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([Fault(wrong=True)], "what was fetched is not the file"),
        ([Fault(html=True)], "a web page in place of data"),
        slow([Fault(status=403)], "refuses access"),
        slow([Fault(status=404)], "no such repository"),
        slow([Fault(status=429)] * 3, "too many requests"),
        slow([Fault(status=503)] * 3, "HTTP 503"),
    ],
)
def test_an_answer_that_is_no_file_is_said_and_nothing_is_lost(
    place: Path, faults: list[Fault], message: str
) -> None:
    with serving(toy(padding=20_000)) as hub:
        hub.faults.extend([Fault(cut_after=50_000), *faults])
        with pytest.raises(InputError, match=message):
            fetched(hub, place / "cache")
        kept = hub.sent.get("data/train-00000-of-00002.parquet", 0)
        hub.faults.clear()
        cache = fetched(hub, place / "cache")
        assert not cache.faults(cache.pin.all_files())
        if not faults[0].wrong:
            assert kept == 50_000
            assert hub.sent[TRAIN] == len(hub.files[TRAIN])


def test_what_the_hub_says_of_a_data_set(place: Path) -> None:
    with serving(toy()) as hub:
        hub.api_status.extend([503, 429])
        assert listed(hub).hub_id == "toys/toy"
        hub.api_status.extend([403])
        with pytest.raises(InputError, match=r"toys/toy at main: the hub refuses access"):
            listed(hub)
        hub.api_html = True
        with pytest.raises(InputError, match="a web page in place of data"):
            listed(hub)
        hub.api_html = False
        del hub.files[TRAIN]
        with pytest.raises(InputError, match=r"of 2 files 1 are there\n.*it has: README.md"):
            listed(hub)
        hub.files["data/train-../../x"] = b""
        with pytest.raises(InputError, match="must lie in its repository"):
            listed(hub)
    hub.address = "http://127.0.0.1:1"
    with pytest.raises(InputError, match="cannot be reached"):
        listed(hub)


def test_a_hub_that_gives_nothing_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "WAITS", ())
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    with serving(toy()) as hub:
        pin = listed(hub)
        hub.faults.append(Fault(seconds=0.15))
        with pytest.raises(InputError, match="gave nothing for"):
            fetch(HubCache.of(pin, "cache"), pin.all_files(), None, hub.address)


def test_a_broken_copy_is_fetched_again_alone(place: Path) -> None:
    with serving(toy()) as hub:
        cache = fetched(hub, place / "cache")
        file = next(f for f in cache.pin.all_files() if f.path == TRAIN)
        cache.content(file).write_bytes(bytes(file.bytes))
        with pytest.raises(InputError, match=r"adamerge data download toy(.|\n)*not the hub's"):
            read()
        assert fetch(cache, cache.pin.all_files(), None, hub.address) == [file]
        part = cache.folder / "blobs" / f"{file.digest}.part"
        shutil.move(cache.content(file), part)  # as after an end before the last step
        part.write_bytes(b"x" * 10)  # or with bytes that are not the file's
        fetch(cache, cache.pin.all_files(), None, hub.address)
    assert len(read()) == 30


def test_no_room_is_said_before_anything_is_fetched(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = collections.namedtuple("usage", "total used free")(100, 90, 10)
    monkeypatch.setattr(hub_download.shutil, "disk_usage", lambda path: usage)
    with serving(toy()) as hub, pytest.raises(InputError, match="GB are missing"):
        fetched(hub, place / "cache")
    assert not hub.sent


def write_cache(place: Path, files: dict[str, bytes]) -> None:
    """Put files into the cache without a hub."""
    from adamerge_core.vision.datasets.hub_files import HubFile

    splits = {
        split: tuple(
            HubFile(name, len(data), digest(data))
            for name, data in files.items()
            if name.startswith(f"data/{split}-")
        )
        for split in ("train", "test")
    }
    pin = Pin("toy", "toys/toy", REVISION, splits)
    write_pin(pin_path("toy"), pin)
    cache = HubCache.of(pin, "cache")
    for file in pin.all_files():
        path = cache.path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[file.path])
    published.published_dataset.cache_clear()


@pytest.mark.parametrize(
    ("labels", "entry", "expected"),
    [
        ([0, 1], {}, {0, 1}),
        ([False, True], {}, {0, 1}),
        ([1, 2], {"bases": "[0, 1]"}, {0, 1}),
        ([10, 1], {"replace": "{10: 0}"}, {0, 1}),
        ([1, 2], {}, None),
        ([0, 2], {"bases": "[0, 1]"}, None),
        ([0, 0], {}, None),
    ],
)
def test_labels_of_any_base_become_classes(
    place: Path, labels: list[int], entry: dict[str, str], expected: set[int] | None
) -> None:
    write_entry(place / "catalogue", 6, 4, **entry)
    write_cache(place, {"data/train-0": table(labels * 3, 2), "data/test-0": table(labels * 2, 2)})
    if expected is None:
        with pytest.raises(InputError, match=r"train-0: has . labels \("):
            read(val=1)
        return
    found = read(val=1)
    assert {label for _, label, _, _ in found} == expected


def tar(labels: list[int], *, drop: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index, label in enumerate(labels):
            members = {f"s{index:07d}.cls": b"%d" % label, f"s{index:07d}.jpg": png(index)}
            for name, data in members.items():
                if name != drop:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_reads_a_webdataset(place: Path) -> None:
    write_entry(place / "catalogue", 6, 4, format="webdataset", image="jpg", label="cls")
    write_cache(place, {"data/train-0": tar([1, 0] * 3), "data/test-0": tar([1, 0] * 2)})
    found = {name: (label, content) for _, label, content, name in read(val=1)}
    assert found["data/train-0 row 3"] == (0, png(3))
    broken = {"data/train-0": tar([1, 0] * 3, drop="s0000002.jpg"), "data/test-0": tar([1, 0] * 2)}
    write_cache(place, broken)
    with pytest.raises(InputError, match=r"5 images \.jpg and 6 labels \.cls"):
        read(val=1)


def test_files_that_are_not_the_catalogues_are_refused(place: Path) -> None:
    good = table([0, 1] * 10, 2)
    test = table([0, 1] * 5, 2)
    write_cache(place, {"data/train-0": good[:-20], "data/test-0": test})
    with pytest.raises(InputError, match="not a whole parquet file"):
        read()
    write_cache(place, {"data/train-0": table([0, 1] * 9, 2), "data/test-0": test})
    with pytest.raises(InputError, match="split train: has 18 images; the catalogue has 20"):
        read()
    write_entry(place / "catalogue", 20, 10, image="img")
    write_cache(place, {"data/train-0": good, "data/test-0": test})
    with pytest.raises(InputError, match="no column 'img'; its columns are image, label"):
        read()


def test_an_entry_is_checked_with_all_its_faults(place: Path) -> None:
    entry = {"source": "hub", "dataset": "toy", "train": 0, "revision": "main", "line": "x"}
    with pytest.raises(InputError, match="3 faults"):
        read_source("x", entry)
    with pytest.raises(InputError, match="ask for 25 images: must be at most 20"):
        read_source("x", {"source": "hub", "dataset": "toy", "train": 20, "val": 5})
    source = source_file.Hub(dataset="toy", line="tall")
    assert [str(path) for path in source.files()] == ["catalogue/toy.yaml", "pins/toy.json"]
    with pytest.raises(InputError, match="fetch it: adamerge data download toy"):
        source.images("x")
    pin_path("toy").parent.mkdir()
    pin_path("toy").write_text('{"revision": "main", "files": {"train": [], "test": [3]}}')
    with pytest.raises(InputError, match=r"adamerge data pin toy: 4 faults"):
        source.images("x")
