"""Kinds of data sources: what an entry may say, how a user's images are dealt to the splits."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adamerge_core.errors import InputError
from adamerge_core.vision import miniature
from adamerge_core.vision.archive import ArchivedImage, encode
from adamerge_core.vision.datasets import SOURCES, Source, read_source, source_faults
from adamerge_core.vision.datasets.registry import source
from adamerge_core.vision.decoding import decode

TEMPLATES = ["a photo of a {}."]
FOLDER = {"source": "image_folder", "path": "photos", "templates": TEMPLATES}
DRAWN = {"source": "miniature", "seed": 0, "train": 6, "val": 2, "test": 3}


def folder_source(folder: Path, seed: int, **parameters: Any) -> Source:
    entry = {"source": "image_folder", "path": str(folder), "templates": TEMPLATES, "seed": seed}
    return read_source("pets", entry | parameters)


def csv_source(table: Path, **parameters: Any) -> Source:
    entry = {"source": "csv_file", "path": str(table), "templates": TEMPLATES}
    return read_source("pets", entry | parameters)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(folder: Path, counts: dict[str, int]) -> None:
    """{"train/cat": 5}: that many images of distinct content."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            seed = int.from_bytes(hashlib.sha256(f"{name}/{index}".encode()).digest()[:4])
            (folder / name / f"{index}.PNG").write_bytes(encode(noise(seed, 4, 4, 3)))


def content(images: Iterable[ArchivedImage]) -> dict[str, list[tuple[int, bytes]]]:
    found: dict[str, list[tuple[int, bytes]]] = {}
    for image in images:
        assert image.suffix == ".png"
        found.setdefault(image.split, []).append((image.label, image.content))
    return found


def test_a_folder_is_split_disjointly_and_by_the_seed(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 30, "train/dog": 20, "test/cat": 4, "test/dog": 3})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "list.csv").write_text("no folder")
    chosen = {"val_fraction": 0.2, "pretrain_per_class": 5}
    data = folder_source(tmp_path, 0, **chosen).images("pets")
    splits = content(data.images)
    classes = data.classes
    assert (classes, data.templates, data.count) == (["cat", "dog"], tuple(TEMPLATES), 57)
    counts = {split: Counter(label for label, _ in entries) for split, entries in splits.items()}
    # val's share is of what pretrain left
    assert counts["pretrain"] == {0: 5, 1: 5}
    assert counts["val"] == {0: 5, 1: 3}
    assert counts["train"] == {0: 20, 1: 12}
    assert counts["test"] == {0: 4, 1: 3}
    everything = [entry for entries in splits.values() for _, entry in entries]
    assert len(set(everything)) == len(everything) == 57
    for label, name in enumerate(classes):
        on_disk = {file.read_bytes() for file in tmp_path.glob(f"*/{name}/*.PNG")}
        assert {e for es in splits.values() for found, e in es if found == label} == on_disk
    again = content(folder_source(tmp_path, 0, **chosen).images("pets").images)
    assert again == splits
    other = content(folder_source(tmp_path, 1, **chosen).images("pets").images)
    assert {b for _, b in other["val"]} != {b for _, b in splits["val"]}
    assert {b for _, b in other["test"]} == {b for _, b in splits["test"]}


def test_splits_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, {f"{split}/cat": 3 for split in ("pretrain", "train", "val", "test")})
    source = folder_source(tmp_path, 0, val_fraction=0.5, pretrain_per_class=2)
    splits = content(source.images("pets").images)
    for split, entries in splits.items():
        files = {file.read_bytes() for file in (tmp_path / split / "cat").iterdir()}
        assert {entry for _, entry in entries} == files
    assert len(splits) == 4
    unused = folder_source(tmp_path, 0).images("pets")
    assert set(content(unused.images)) == {"train", "val", "test"}


def empty_the_test_split(folder: Path) -> None:
    (folder / "test").mkdir()


@pytest.mark.parametrize(
    ("counts", "change", "faults"),
    [
        ({"test/cat": 2}, None, ["split train: no folder {}/train"]),
        ({"train/cat": 5}, None, ["split test: no folder {}/test"]),
        ({}, None, ["split train: no folder {}/train", "split test: no folder {}/test"]),
        (
            {"train/cat": 5, "train/dog": 0, "train/eel": 0},
            empty_the_test_split,
            [
                "split test: {}/test has no class folder",
                "split train, class dog: no image in {}/train/dog",
                "split train, class eel: no image in {}/train/eel",
            ],
        ),
    ],
)
def test_all_that_a_folder_lacks_is_listed(
    tmp_path: Path,
    counts: dict[str, int],
    change: Callable[[Path], None] | None,
    faults: list[str],
) -> None:
    fill(tmp_path, counts)
    if change:
        change(tmp_path)
    with pytest.raises(InputError) as caught:
        folder_source(tmp_path, 0, pretrain_per_class=5).images("pets")
    for fault in faults:
        assert fault.format(tmp_path) in str(caught.value)
    assert f": {len(faults)} fault" in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder") as caught:
        folder_source(tmp_path / "photos", 0).images("pets")
    assert str(tmp_path / "photos") in str(caught.value)


def test_classes_with_too_few_images_to_set_aside_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 1, "train/dog": 2, "train/eel": 3, "test/cat": 1})
    with pytest.raises(InputError) as caught:
        folder_source(tmp_path, 0, pretrain_per_class=5).images("pets")
    message = str(caught.value)
    assert "class cat: no image is left" in message
    assert "class dog: no image is left" in message
    assert "class eel" not in message


def test_every_kind_registers_itself_and_says_its_own_code() -> None:
    assert set(SOURCES) == {"csv_file", "hub", "image_folder", "local_copy", "miniature"}
    for name, kind in SOURCES.items():
        assert dataclasses.is_dataclass(kind)
        assert kind.__module__ == f"adamerge_core.vision.datasets.{name}"
    assert read_source("pets", FOLDER).modules("pets") == (SOURCES["image_folder"].__module__,)
    drawn = (SOURCES["miniature"].__module__, "adamerge_core.vision.miniature.glyphs")
    assert read_source("letters", DRAWN).modules("letters") == drawn


def test_a_kind_cannot_be_registered_twice() -> None:
    with pytest.raises(TypeError, match="source miniature: registered twice"):
        source("miniature")(SOURCES["image_folder"])


@pytest.mark.parametrize(
    ("dataset", "entry", "faults"),
    [
        ("photos", DRAWN, []),
        ("pets", FOLDER, []),
        ("pets", {}, ["source: is missing; known are csv_file, hub, image_folder, local_copy, "]),
        ("pets", {"source": ["hub"]}, ["source = ['hub']: unknown; known are csv_file, "]),
        (
            "pets",
            {"source": "image_folder", "path": 3, "templates": TEMPLATES, "val_fracton": 0.1},
            ["val_fracton: is no parameter; known are path", "path = 3: must be text"],
        ),
        (
            "pets",
            FOLDER
            | {
                "seed": -1,
                "val_fraction": 0,
                "pretrain_per_class": -2,
                "templates": ["a pet", "{} {}", "{", "a {0}", "the {}"],
            },
            [
                "seed = -1: must be at least 0",
                "pretrain_per_class = -2: must be at least 0",
                "val_fraction = 0: must be above 0 and at most 1",
                "templates: 'a pet' must hold {} once",
                "templates: '{} {}' must hold {} once",
                "templates: '{' must hold {} once",
                "templates: 'a {0}' must hold {} once",
            ],
        ),
        ("pets", FOLDER | {"templates": []}, ["templates: is empty"]),
        (
            "pets",
            FOLDER | {"source": "csv_file", "test_fraction": 1.5},
            ["test_fraction = 1.5: must be above 0 and at most 1"],
        ),
        (
            "cars",
            DRAWN | {"train": 0, "pretrain": -1},
            [
                "train = 0: must be at least 1",
                "pretrain = -1: must be at least 0",
                "source = 'miniature': no miniature is called 'cars'; use photos, ",
            ],
        ),
        (
            "mnist",
            DRAWN | {"train": 3201, "test": 1200},
            ["train = 3201: must be at most 3200, as many as there are"],
        ),
    ],
)
def test_all_faults_of_an_entry_are_listed(
    dataset: str, entry: dict[str, Any], faults: list[str]
) -> None:
    lines = source_faults(dataset, entry)
    assert len(lines) == len(faults), lines
    for line, fault in zip(lines, faults, strict=True):
        assert line.startswith(fault)
    if faults:
        with pytest.raises(InputError, match=f"datasets.{dataset}: {len(faults)} fault"):
            read_source(dataset, entry)


def test_a_source_says_which_splits_and_files_it_has() -> None:
    without = ("train", "val", "test")
    assert read_source("photos", DRAWN).splits() == without
    assert read_source("photos", DRAWN | {"pretrain": 4}).splits() == ("pretrain", *without)
    assert read_source("photos", DRAWN).files() == ()
    assert read_source("pets", FOLDER).splits() == without
    assert read_source("pets", FOLDER | {"pretrain_per_class": 1}).splits()[0] == "pretrain"
    assert read_source("pets", FOLDER).files() == (Path("photos"),)


def test_a_miniature_gives_the_drawn_images_in_their_order() -> None:
    data = read_source("letters", DRAWN).images("letters")
    assert data.classes == miniature.class_names("letters")
    assert data.templates == miniature.templates("letters")
    images = list(data.images)
    assert data.count == len(images) == 11
    assert [image.split for image in images] == ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    assert images[7].name == "val image 1"
    for image, (pixels, label) in zip(
        images[:6], miniature.images("letters", "train", 6, 0), strict=True
    ):
        np.testing.assert_array_equal(decode(image.content, 64).pixels, pixels)
        assert image.label == label


def test_images_are_named_by_their_paths_in_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 3, "test/cat": 1})
    names = {image.name for image in folder_source(tmp_path, 0).images("pets").images}
    assert names == {"train/cat/0.PNG", "train/cat/1.PNG", "train/cat/2.PNG", "test/cat/0.PNG"}


def write_table(folder: Path, rows: list[str], header: str = "path,label,split") -> Path:
    table = folder / "images.csv"
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table


def test_a_table_deals_like_the_folder_that_it_lists(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 12, "train/dog": 9, "test/cat": 4, "test/dog": 3})
    files = sorted(tmp_path.glob("*/*/*"), reverse=True)
    rows = [f"{f.relative_to(tmp_path)},{f.parent.name},{f.parent.parent.name}" for f in files]
    chosen = {"seed": 3, "pretrain_per_class": 2}
    listed = csv_source(write_table(tmp_path, rows), **chosen).images("pets")
    folder = folder_source(tmp_path, **chosen).images("pets")
    assert listed.classes == folder.classes
    assert list(listed.images) == list(folder.images)


def test_columns_have_the_names_that_the_entry_says(tmp_path: Path) -> None:
    fill(tmp_path, {"all": 12})
    rows = [f"{n % 2},x,all/{n}.PNG,{'test' if n > 9 else ''}" for n in range(12)]
    table = write_table(tmp_path, rows, "\ufeffbreed,note,file,part")
    columns = {"path_column": "file", "label_column": "breed", "split_column": "part"}
    data = csv_source(table, **columns).images("pets")
    assert data.classes == ["0", "1"]
    images = list(data.images)
    assert Counter(image.split for image in images) == {"train": 8, "val": 2, "test": 2}
    assert {image.name for image in images if image.split == "test"} == {
        "all/10.PNG",
        "all/11.PNG",
    }


def test_a_table_without_splits_sets_test_and_val_aside(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 20, "dog": 10})
    rows = [
        f"{name}/{n}.PNG,{name}"
        for name, count in {"cat": 20, "dog": 10}.items()
        for n in range(count)
    ]
    data = csv_source(write_table(tmp_path, rows, "path,label")).images("pets")
    images = list(data.images)
    assert Counter((image.split, image.label) for image in images) == {
        ("test", 0): 4, ("test", 1): 2, ("val", 0): 2, ("val", 1): 1, ("train", 0): 14,
        ("train", 1): 7,
    }  # fmt: skip
    assert len({image.name for image in images}) == 30


def test_all_that_is_wrong_with_a_table_is_listed(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5})
    rows = [
        "a/0.PNG,cat,train",
        "a/9.PNG,cat,train",
        "a/1.PNG,,train",
        "a/2.PNG,cat,dev",
        "./a/0.PNG,cat,test",
        "a/3.PNG,cta,test",
        ",cat,train",
    ]
    with pytest.raises(InputError) as caught:
        csv_source(write_table(tmp_path, rows)).images("pets")
    assert str(caught.value).splitlines() == [
        f"data file {tmp_path / 'images.csv'}: 6 faults",
        "  - line 3: a/9.PNG: no such file",
        "  - line 4: a/1.PNG: no label",
        "  - line 5: a/2.PNG: split 'dev'; must be one of pretrain, train, val, test",
        "  - line 6: ./a/0.PNG stands in line 2 too; remove one",
        "  - line 8: no path",
        "  - split test, class 'cta': no image for training has it; mend the name, or give "
        "training images of it",
    ]
    many = [f"a/{n}.PNG,cat,train" for n in range(5, 38)]
    with pytest.raises(InputError, match=r"33 faults(?s:.*)and 13 more"):
        csv_source(write_table(tmp_path, many)).images("pets")


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.csv: no such file"):
        csv_source(tmp_path / "images.csv").images("pets")
    table = write_table(tmp_path, [], "file,class")
    with pytest.raises(InputError, match=r"2 faults(?s:.*)'label': is missing; there are file, cl"):
        csv_source(table).images("pets")
    table.write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        csv_source(table).images("pets")
    with pytest.raises(InputError, match="there is no image for training"):
        csv_source(write_table(tmp_path, [])).images("pets")


def test_checking_entries_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from adamerge_core.vision.architectures import ARCHITECTURES, PIXEL_SCALING\n"
        "from adamerge_core.vision.corruptions import CORRUPTIONS\n"
        "from adamerge_core.vision.datasets.registry import source_faults\n"
        f"assert not source_faults('mnist', {DRAWN})\n"
        "heavy = {'torch', 'open_clip', 'timm', 'albumentations', 'cv2', 'skimage', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
