"""Archives and their preparation: what is written, decoded, refused or skipped, in what memory."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adamerge_core.errors import InputError
from adamerge_core.vision import preparation
from adamerge_core.vision.archive import (
    ArchivedImage,
    DatasetImages,
    encode,
    open_archive,
    write_archive,
)
from adamerge_core.vision.decoding import COMPOSITED, SCALED, Decoded, decode
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.preparation import Prepared, prepare_archive

CLASSES, TEMPLATES = ["cat", "red car"], ["a photo of a {}.", "the {}."]
SPLITS = ("train", "train", "val", "test")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_of(pixels: np.ndarray, form: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def sample(broken: dict[int, bytes] | None = None) -> tuple[DatasetImages, list[np.ndarray]]:
    """Twelve images over three splits and their pixels; those at `broken` have that content."""
    pixels = [noise(index, 8, 8, 3) for index in range(12)]
    contents = dict(enumerate(map(encode, pixels))) | (broken or {})
    images = [
        ArchivedImage(SPLITS[index % 4], index % 2, ".png", content, f"pets/{index}.png")
        for index, content in contents.items()
    ]
    return DatasetImages(CLASSES, TEMPLATES, len(images), images), pixels


def write_sample(path: Path, broken: dict[int, bytes] | None = None) -> list[np.ndarray]:
    data, pixels = sample(broken)
    write_archive(path, data)
    return pixels


def prepare(path: Path, unreadable: str = "fail") -> tuple[Prepared, dict[str, LabeledImages]]:
    """Prepare an archive at 8 pixels beside it."""

    def files_of(split: str) -> tuple[Path, Path]:
        return (
            path.parent / "8px" / f"{split}_images.npy",
            path.parent / "8px" / f"{split}_labels.npy",
        )

    prepared = prepare_archive(path, 8, files_of, unreadable)  # type: ignore[arg-type]
    return prepared, {split: LabeledImages.open(*files_of(split)) for split in prepared.counts}


def test_an_archive_reads_back_what_was_written(tmp_path: Path) -> None:
    data, _ = sample()
    told: list[tuple[int, int, str]] = []
    write_archive(tmp_path / "task.zip", data, lambda *progress: told.append(progress))
    assert told == [(n, 12, "images") for n in range(1, 13)]
    with open_archive(tmp_path / "task.zip") as archive:
        assert (archive.classes, archive.templates) == (CLASSES, TEMPLATES)
        entries = list(archive.entries())
        for entry, image in zip(entries, data.images, strict=True):
            assert (entry.split, entry.label, entry.name) == (image.split, image.label, image.name)
            assert archive.read(entry) == image.content


def test_names_keep_characters_that_are_no_text(tmp_path: Path) -> None:
    images = [
        ArchivedImage("train", 0, ".png", b"", name) for name in ("Größe/猫.png", "bad\udcff.png")
    ]
    write_archive(tmp_path / "task.zip", DatasetImages(CLASSES, TEMPLATES, 2, images))
    with open_archive(tmp_path / "task.zip") as archive:
        names = [entry.name for entry in archive.entries()]
    assert names == ["Größe/猫.png", "bad\\xff.png"]


def test_an_archive_is_prepared_in_its_order(tmp_path: Path) -> None:
    pixels = write_sample(tmp_path / "task.zip")
    prepared, splits = prepare(tmp_path / "task.zip")
    assert prepared == Prepared({"train": 6, "val": 3, "test": 3}, [], {})
    for split, data in splits.items():
        expected = [p for index, p in enumerate(pixels) if SPLITS[index % 4] == split]
        np.testing.assert_array_equal(data.images, np.stack(expected))
        assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int64)
        again = io.BytesIO()
        np.save(again, np.stack(expected))
        assert (tmp_path / "8px" / f"{split}_images.npy").read_bytes() == again.getvalue()
    assert splits["train"].labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert splits["val"].labels.tolist() == [0, 0, 0]
    assert splits["test"].labels.tolist() == [1, 1, 1]
    assert len(list((tmp_path / "8px").iterdir())) == 6


def test_a_split_pretrain_is_prepared_where_there_is_one(tmp_path: Path) -> None:
    data, pixels = sample()
    more = ArchivedImage("pretrain", 1, ".png", encode(pixels[0]), "more.png")
    write_archive(
        tmp_path / "task.zip", DatasetImages(CLASSES, TEMPLATES, 13, [more, *data.images])
    )
    prepared, splits = prepare(tmp_path / "task.zip")
    assert prepared.counts == {"pretrain": 1, "train": 6, "val": 3, "test": 3}
    np.testing.assert_array_equal(splits["pretrain"].images, pixels[0][None])


def test_progress_is_told_after_each_image(tmp_path: Path) -> None:
    write_sample(tmp_path / "task.zip")
    told: list[tuple[int, int, str]] = []
    prepare_archive(
        tmp_path / "task.zip",
        8,
        lambda split: (tmp_path / f"{split}.npy", tmp_path / f"{split}_labels.npy"),
        progress=lambda *progress: told.append(progress),
    )
    assert told == [(n, 12, "images") for n in range(1, 13)]


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

    def images() -> Iterator[ArchivedImage]:
        yield ArchivedImage("train", 0, ".png", encode(noise(0, 4, 4, 3)), "a.png")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_archive(path, DatasetImages(CLASSES, TEMPLATES, 2, images()))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    whole = encode(noise(4, 8, 8, 3))
    flipped = bytearray(whole)
    flipped[40] ^= 0xFF
    broken = {1: b"no image", 2: b"", 4: whole[: len(whole) // 2], 7: bytes(flipped)}
    pixels = write_sample(path, broken)
    with pytest.raises(InputError) as caught:
        prepare(path)
    assert not list((tmp_path / "8px").iterdir())
    lines = str(caught.value).splitlines()
    assert str(path) in lines[0]
    assert "4 faults" in lines[0]
    named = [line.removeprefix("  - ").split(":")[0] for line in lines[1:]]
    assert named == [
        "pets/1.png (split train, class red car)",
        "pets/2.png (split val, class cat)",
        "pets/4.png (split train, class cat)",
        "pets/7.png (split test, class red car)",
    ]
    prepared, splits = prepare(path, "skip")
    assert prepared.counts == {"train": 4, "val": 2, "test": 2}
    assert [line.split(":")[0] for line in prepared.skipped] == named
    np.testing.assert_array_equal(
        splits["train"].images, np.stack([pixels[n] for n in (0, 5, 8, 9)])
    )
    assert splits["train"].labels.tolist() == [0, 1, 0, 1]


def test_a_split_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    write_sample(path, dict.fromkeys((2, 3, 6, 7, 10, 11), b"no image"))
    with pytest.raises(InputError) as caught:
        prepare(path, "skip")
    for split in ("val", "test"):
        assert f"split {split}: no image of this split can be read" in str(caught.value)
    assert not list((tmp_path / "8px").iterdir())


def test_splits_that_an_archive_lacks_are_listed(tmp_path: Path) -> None:
    image = ArchivedImage("train", 0, ".png", encode(noise(0, 4, 4, 3)), "a.png")
    write_archive(tmp_path / "task.zip", DatasetImages(CLASSES, TEMPLATES, 1, [image]))
    with pytest.raises(InputError, match="2 faults") as caught:
        prepare(tmp_path / "task.zip")
    assert "split val: it holds no image of this split" in str(caught.value)
    assert "split test: it holds no image of this split" in str(caught.value)


def test_a_damaged_archive_is_no_unreadable_image(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    pixels = write_sample(path)
    content = bytearray(path.read_bytes())
    content[content.index(encode(pixels[5])) + 30] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole zip file"):
        prepare(path, "skip")


def test_running_out_of_memory_is_no_unreadable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes, size: int) -> Decoded:
        raise MemoryError

    write_sample(tmp_path / "task.zip")
    monkeypatch.setattr(preparation, "decode", fail)
    with pytest.raises(MemoryError):
        prepare(tmp_path / "task.zip", "skip")


def test_a_long_list_of_broken_images_is_cut_with_a_count(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    images = [
        ArchivedImage(split, 0, ".png", b"no image", f"{split}.png")
        for split in ("train", "val", "test") * 11
    ]
    write_archive(path, DatasetImages(CLASSES, TEMPLATES, len(images), images))
    with pytest.raises(InputError, match=r"33 faults(?s:.*)and 13 more"):
        prepare(path)


@given(
    form=st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
)
@settings(deadline=None, max_examples=80)
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
    pixels = write_sample(path, {3: bytes(content)})
    message = ""
    try:
        _, splits = prepare(path)
    except InputError as error:
        message = str(error)
    if message:
        assert "pets/3.png (split test, class red car)" in message
    else:
        np.testing.assert_array_equal(splits["test"].images[1:], np.stack([pixels[7], pixels[11]]))


def test_known_ways_to_break_a_header_are_named(tmp_path: Path) -> None:
    """Pillow answers these with SyntaxError and ValueError."""
    png = encode(noise(0, 8, 8, 3))
    broken = {0: png.replace(b"IDAT", b"Z\t\xef@"), 1: png[:11] + b"\x05" + png[12:], 2: b"P6 3"}
    write_sample(tmp_path / "task.zip", broken)
    with pytest.raises(InputError, match="3 faults"):
        prepare(tmp_path / "task.zip")


@pytest.mark.parametrize("content", [b"", b"no zip", "cut"])
def test_an_archive_that_is_none_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "task.zip"
    if content == "cut":
        write_sample(path)
        content = path.read_bytes()[:-30]
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole zip file") as caught:
        prepare(path)
    assert str(path) in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(width=st.integers(3, 90), height=st.integers(3, 90), size=st.integers(1, 48))
def test_decoding_gives_the_pixels_that_clip_was_trained_on(
    width: int, height: int, size: int
) -> None:
    """Equal to open_clip's own preprocessing, before it scales the pixels."""
    pixels = noise(0, height, width, 3)
    theirs = open_clip.image_transform(size, is_train=False, mean=(0,) * 3, std=(1,) * 3)
    expected = (theirs(Image.fromarray(pixels)) * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(decode(encode(pixels), size).pixels, expected)


def test_decoding_resizes_the_shorter_side_and_crops_the_middle() -> None:
    same = noise(0, 16, 16, 3)
    np.testing.assert_array_equal(decode(encode(same), 16).pixels, same)
    stripes = np.zeros((10, 30, 3), dtype=np.uint8)
    stripes[:, :10, 0], stripes[:, 10:20, 1], stripes[:, 20:, 2] = 255, 255, 255
    middle = np.zeros((10, 10, 3), dtype=np.uint8)
    middle[..., 1] = 255
    np.testing.assert_array_equal(decode(encode(stripes), 10).pixels, middle)
    turned = stripes.transpose(1, 0, 2).copy()
    np.testing.assert_array_equal(decode(encode(turned), 10).pixels, middle)
    for shape in [(33, 17), (17, 33), (5, 40), (100, 3), (1, 1)]:
        assert decode(encode(noise(1, *shape, 3)), 12).pixels.shape == (12, 12, 3)
    assert (
        decode(encode(np.full((33, 17, 3), 77, np.uint8)), 12).pixels.tolist()
        == [[[77] * 3] * 12] * 12
    )


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_decoding_gives_three_channels_for_every_mode(mode: str) -> None:
    gray = np.where(np.indices((8, 8)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=2)
    image = decode(file_of(pixels, "TIFF" if mode == "CMYK" else "PNG", mode), 8).pixels
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_what_is_transparent_lies_on_white_and_palettes_are_looked_up() -> None:
    pixels = noise(0, 6, 6, 4)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    opacity = pixels[..., 3:] / 255
    expected = pixels[..., :3] * opacity + 255 * (1 - opacity)
    decoded = decode(buffer.getvalue(), 6)
    np.testing.assert_allclose(decoded.pixels, expected, atol=1)
    assert decoded.changes == (COMPOSITED,)
    colours = np.array([[250, 10, 20], [0, 120, 240]], dtype=np.uint8)[noise(1, 6, 6) % 2]
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), 6).pixels, colours)


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257], [30000, 65535]], dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    decoded = decode(buffer.getvalue(), 2)
    assert decoded.pixels[..., 0].tolist() == [[0, 1], [116, 255]]
    assert decoded.changes == (SCALED,)


PREPARING = """
import resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from adamerge_core.vision.preparation import prepare_archive

archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
size, limit = int(sys.argv[3]), int(sys.argv[4])
Image.init()

held = int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0]) * 1024
bound = held + limit
resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
try:
    np.zeros(limit, dtype=np.uint8)
    sys.exit('the limit does not hold')
except MemoryError:
    pass
prepared = prepare_archive(
    archive, size, lambda split: (folder / f'{split}.npy', folder / f'{split}_labels.npy')
)
print(prepared.counts['train'])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")
@pytest.mark.parametrize(
    "limit", [6_000_000, pytest.param(60_000_000, marks=pytest.mark.slow)], ids=["6 MB", "60 MB"]
)
def test_arrays_ten_times_the_memory_limit_are_prepared(tmp_path: Path, limit: int) -> None:
    """A process that may hold 6 (60) MB prepares arrays of 60 (600) MB.

    What is limited is RLIMIT_DATA, above what the process holds after its imports: all private
    memory that it can write, heap and anonymous mappings. The pages of files that the system
    caches are no part of it; they belong to no process and are given up when memory is short.
    """
    size = 224
    count = 10 * limit // (size * size * 3) + 1
    content = encode(noise(0, 8, 8, 3))
    images = (
        ArchivedImage(("val", "test")[n] if n < 2 else "train", 0, ".png", content, f"{n}.png")
        for n in range(count + 2)
    )
    write_archive(tmp_path / "task.zip", DatasetImages(CLASSES, TEMPLATES, count + 2, images))
    arguments = [tmp_path / "task.zip", tmp_path, size, limit]
    done = subprocess.run(
        [sys.executable, "-c", PREPARING, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == count
    prepared = LabeledImages.open(tmp_path / "train.npy", tmp_path / "train_labels.npy")
    assert prepared.images.nbytes > 10 * limit
    np.testing.assert_array_equal(prepared.images[-1], decode(content, size).pixels)
