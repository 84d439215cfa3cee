"""Archives, folders and arrays of images: what is read, what is refused, by which name."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adamerge_core.errors import InputError
from adamerge_core.vision.images import (
    ArchivedImage,
    LabeledImages,
    decode,
    encode,
    folder_images,
    open_array,
    read_archive,
    save_array,
    write_archive,
)

CLASSES, TEMPLATES = ["cat", "red car"], ["a photo of a {}.", "the {}."]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_of(pixels: np.ndarray, form: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def write_sample(path: Path, broken: dict[int, bytes] | None = None) -> dict[str, list[np.ndarray]]:
    """Twelve images over three splits; those at `broken` have that content."""
    pictures: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    images = []
    for index in range(12):
        split = ("train", "train", "val", "test")[index % 4]
        pixels = noise(index, 8, 8, 3)
        pictures[split].append(pixels)
        content = (broken or {}).get(index, encode(pixels))
        images.append(ArchivedImage(split, index % 2, ".png", content))
    write_archive(path, CLASSES, TEMPLATES, images)
    return pictures


def test_an_archive_reads_back_what_was_written(tmp_path: Path) -> None:
    pictures = write_sample(tmp_path / "task.zip")
    names, splits = read_archive(tmp_path / "task.zip", 8)
    assert names == {"classes": CLASSES, "templates": TEMPLATES}
    assert splits.keys() == pictures.keys()
    for split, expected in pictures.items():
        np.testing.assert_array_equal(splits[split].images, np.stack(expected))
        assert splits[split].images.dtype == np.uint8
        assert splits[split].labels.dtype == np.int64
    assert splits["train"].labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert splits["val"].labels.tolist() == [0, 0, 0]
    assert splits["test"].labels.tolist() == [1, 1, 1]


def test_equal_images_give_archives_of_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("1.zip", "2.zip"):
        write_sample(tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist()[:3] == [
            "classes.json",
            "train/0000/000000.png",
            "train/0001/000001.png",
        ]


def test_an_archive_that_fails_midway_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    write_sample(path)
    before = path.read_bytes()

    def images():
        yield ArchivedImage("train", 0, ".png", encode(noise(0, 4, 4, 3)))
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_archive(path, CLASSES, TEMPLATES, images())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    whole = encode(noise(4, 8, 8, 3))
    flipped = bytearray(whole)
    flipped[40] ^= 0xFF
    broken = {1: b"no image", 2: b"", 4: whole[: len(whole) // 2], 7: bytes(flipped)}
    write_sample(path, broken)
    with pytest.raises(InputError) as caught:
        read_archive(path, 8)
    lines = str(caught.value).splitlines()
    assert str(path) in lines[0]
    assert "4 faults" in lines[0]
    named = [line.removeprefix("  - ").split(":")[0] for line in lines[1:]]
    assert named == [
        "train/0001/000001.png (class red car)",
        "val/0000/000002.png (class cat)",
        "train/0000/000004.png (class cat)",
        "test/0001/000007.png (class red car)",
    ]


def test_a_long_list_of_broken_images_is_cut_with_a_count(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    images = [ArchivedImage("train", 0, ".png", b"no image") for _ in range(33)]
    write_archive(path, CLASSES, TEMPLATES, images)
    with pytest.raises(InputError, match="and 13 more"):
        read_archive(path, 8)


@given(
    form=st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
)
@settings(deadline=None, max_examples=80)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of the broken files' metadata
def test_a_damaged_image_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    changes: list[tuple[float, int]],
    kept: float,
) -> None:
    content = bytearray(file_of(noise(0, 9, 7, 3), form))
    for where, value in changes:
        content[int(where**3 * len(content))] = value  # mostly in the header
    content = content[: int(kept * len(content)) + 1]
    path = tmp_path_factory.mktemp("damaged") / "task.zip"
    write_archive(path, CLASSES, TEMPLATES, [ArchivedImage("test", 1, ".png", bytes(content))])
    message = ""
    try:
        _, splits = read_archive(path, 8)
    except InputError as error:
        message = str(error)
    if message:
        assert "test/0001/000000.png (class red car)" in message
    else:
        assert splits["test"].images.shape == (1, 8, 8, 3)


def test_known_ways_to_break_a_header_are_named(tmp_path: Path) -> None:
    """Pillow answers these with SyntaxError and ValueError."""
    png = encode(noise(0, 8, 8, 3))
    broken = {0: png.replace(b"IDAT", b"Z\t\xef@"), 1: png[:11] + b"\x05" + png[12:], 2: b"P6 3"}
    write_sample(tmp_path / "task.zip", broken)
    with pytest.raises(InputError, match="3 faults"):
        read_archive(tmp_path / "task.zip", 8)


@pytest.mark.parametrize("content", [None, b"", b"no zip", "cut"])
def test_an_archive_that_is_none_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "task.zip"
    if content == "cut":
        write_sample(path)
        content = path.read_bytes()[:-30]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole zip file") as caught:
        read_archive(path, 8)
    assert str(path) in str(caught.value)


def test_decoding_resizes_the_shorter_side_and_crops_the_middle() -> None:
    same = noise(0, 16, 16, 3)
    np.testing.assert_array_equal(decode(encode(same), 16), same)
    stripes = np.zeros((10, 30, 3), dtype=np.uint8)
    stripes[:, :10, 0], stripes[:, 10:20, 1], stripes[:, 20:, 2] = 255, 255, 255
    middle = np.zeros((10, 10, 3), dtype=np.uint8)
    middle[..., 1] = 255
    np.testing.assert_array_equal(decode(encode(stripes), 10), middle)
    turned = stripes.transpose(1, 0, 2).copy()
    np.testing.assert_array_equal(decode(encode(turned), 10), middle)
    for shape in [(33, 17), (17, 33), (5, 40), (100, 3), (1, 1)]:
        assert decode(encode(noise(1, *shape, 3)), 12).shape == (12, 12, 3)
    assert decode(encode(np.full((33, 17, 3), 77, np.uint8)), 12).tolist() == [[[77] * 3] * 12] * 12


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_decoding_gives_three_channels_for_every_mode(mode: str) -> None:
    gray = np.where(np.indices((8, 8)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=2)
    image = decode(file_of(pixels, "TIFF" if mode == "CMYK" else "PNG", mode), 8)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_alpha_is_dropped_and_palettes_are_looked_up() -> None:
    pixels = noise(0, 6, 6, 4)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), 6), pixels[..., :3])
    colours = np.array([[250, 10, 20], [0, 120, 240]], dtype=np.uint8)[noise(1, 6, 6) % 2]
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), 6), colours)


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257], [30000, 65535]], dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    assert decode(buffer.getvalue(), 2)[..., 0].tolist() == [[0, 1], [116, 255]]


def fill(folder: Path, counts: dict[str, int]) -> None:
    """{"train/cat": 5}: that many images of distinct content."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            seed = int.from_bytes(hashlib.sha256(f"{name}/{index}".encode()).digest()[:4])
            (folder / name / f"{index}.PNG").write_bytes(encode(noise(seed, 4, 4, 3)))


def content(images) -> dict[str, list[tuple[int, bytes]]]:
    found: dict[str, list[tuple[int, bytes]]] = {}
    for image in images:
        assert image.suffix == ".png"
        found.setdefault(image.split, []).append((image.label, image.content))
    return found


def test_a_folder_is_split_disjointly_and_by_the_seed(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 30, "train/dog": 20, "test/cat": 4, "test/dog": 3})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "list.csv").write_text("no folder")
    classes, images = folder_images(tmp_path, 0, val_fraction=0.2, pretrain_per_class=5)
    splits = content(images)
    assert classes == ["cat", "dog"]
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
    again = content(folder_images(tmp_path, 0, 0.2, 5)[1])
    assert again == splits
    other = content(folder_images(tmp_path, 1, 0.2, 5)[1])
    assert {b for _, b in other["val"]} != {b for _, b in splits["val"]}
    assert {b for _, b in other["test"]} == {b for _, b in splits["test"]}


def test_splits_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, {f"{split}/cat": 3 for split in ("pretrain", "train", "val", "test")})
    splits = content(folder_images(tmp_path, 0, 0.5, 2)[1])
    for split, entries in splits.items():
        files = {file.read_bytes() for file in (tmp_path / split / "cat").iterdir()}
        assert {entry for _, entry in entries} == files
    assert len(splits) == 4


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
        folder_images(tmp_path, 0, 0.1, 5)
    for fault in faults:
        assert fault.format(tmp_path) in str(caught.value)
    assert f": {len(faults)} fault" in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder") as caught:
        folder_images(tmp_path / "photos", 0, 0.1, 5)
    assert str(tmp_path / "photos") in str(caught.value)


def test_classes_with_too_few_images_to_set_aside_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, {"train/cat": 1, "train/dog": 2, "train/eel": 3, "test/cat": 1})
    with pytest.raises(InputError) as caught:
        folder_images(tmp_path, 0, 0.1, 5)
    message = str(caught.value)
    assert "class cat: no image is left" in message
    assert "class dog: no image is left" in message
    assert "class eel" not in message


def test_arrays_are_read_back_memory_mapped_and_read_only(tmp_path: Path) -> None:
    images, labels = noise(0, 5, 4, 4, 3), np.arange(5)
    save_array(tmp_path / "images.npy", images)
    save_array(tmp_path / "labels.npy", labels)
    data = LabeledImages.open(tmp_path / "images.npy", tmp_path / "labels.npy")
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.labels, labels)


@pytest.mark.parametrize("fault", ["missing", "empty", "cut header", "cut", "text", "pickle"])
def test_an_array_that_is_none_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "images.npy"
    save_array(path, noise(0, 5, 4, 4, 3))
    whole = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(
            {"empty": b"", "cut header": whole[:40], "cut": whole[:-1], "text": b"text" * 40}[fault]
        )
    with pytest.raises(InputError) as caught:
        open_array(path, 4)
    assert str(path) in str(caught.value)


def test_an_array_of_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    save_array(path, noise(0, 5, 4))
    with pytest.raises(InputError, match=r"shape \[5, 4\], but 4 dimensions") as caught:
        open_array(path, 4)
    assert str(path) in str(caught.value)


def test_as_many_labels_as_images_are_needed(tmp_path: Path) -> None:
    images, labels = tmp_path / "images.npy", tmp_path / "labels.npy"
    save_array(images, noise(0, 5, 4, 4, 3))
    save_array(labels, np.arange(6))
    with pytest.raises(InputError, match=r"5 images and 6 in") as caught:
        LabeledImages.open(images, labels)
    assert str(images) in str(caught.value)
    assert str(labels) in str(caught.value)
