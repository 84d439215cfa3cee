"""Image files: which are decoded, how large, and what becomes of their pixels."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import open_archive
from adamerge_core.vision.datasets import read_source
from adamerge_core.vision.decoding import FIRST_FRAME, TURNED, decode
from adamerge_core.vision.names import class_name_faults, printable


def file_of(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.init()
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(ran) (w) file closefile\n"
    with pytest.raises(InputError, match="is no whole image of PNG, JPEG"):
        decode(content, 8)
    assert not list(tmp_path.iterdir())


def test_orientation_is_followed() -> None:
    image = Image.new("RGB", (8, 8))
    image.paste((255, 0, 0), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is to the right
    decoded = decode(file_of(image, exif=exif), 8)
    np.testing.assert_array_equal(decoded.pixels[..., 0] > 0, np.tile([0] * 4 + [1] * 4, (8, 1)))
    assert decoded.changes == (TURNED,)


def test_the_first_of_several_frames_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), (n, n, n)) for n in (7, 99)]
    decoded = decode(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:]), 8)
    assert decoded.pixels.max() == 7
    assert decoded.changes == (FIRST_FRAME,)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"pixels of mode '{mode}'.*save it as RGB or gray"):
        decode(file_of(Image.new(mode, (8, 8)), "TIFF"), 8)


@pytest.mark.parametrize(
    ("width", "height", "rule"),
    [(60_000, 60_000, "more than 100000000 pixels"), (12_000, 12_000, "at most 100000000 pixels"),
     (1, 60_000, "at most 50 times the shorter")],
)  # fmt: skip
def test_what_is_too_large_is_refused_by_its_header(width: int, height: int, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        decode(b"P6 %d %d 255\n" % (width, height), 8)


def test_a_deflated_archive_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("classes.json", '{"classes": ["a"], "templates": []}')
        archive.writestr("train/0000/000000.png", bytes(2**20))
    with (
        pytest.raises(InputError, match=r"become 1048576; must be stored"),
        open_archive(tmp_path / "a.zip"),
    ):
        pass
    assert (tmp_path / "a.zip").stat().st_size < len(zlib.compress(bytes(2**20))) + 400


def test_names_are_printed_on_one_line() -> None:
    assert printable("猫 ${x}\n\x7f\x85\u202e\udcff") == "猫 ${x}\\n\\x7f\\x85\\u202e\\xff"
    assert class_name_faults(["red car", "猫", "$\\frac$"]) == []
    assert len(class_name_faults(["", "a\nb", "\udcff", "a" * 201, 3])) == 5
    (fault,) = class_name_faults(["caf\u00e9", "cafe\u0301"])
    assert "2 ways that look the same" in fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with four images for training and one for testing."""
    for split, count in (("train", 4), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(count):
                content = file_of(Image.new("RGB", (4, 4), (n, n, n)))
                (tmp_path / split / name / f"{n}.png").write_bytes(content)
    return tmp_path


def folder_entry(folder: Path) -> dict[str, Any]:
    return {"source": "image_folder", "path": str(folder), "templates": ["a {}."]}


def test_what_is_left_out_is_said(folder: Path) -> None:
    for name in ("train/cat/.DS_Store", "train/cat/a.heic", "train/list.csv", "a.csv"):
        (folder / name).write_bytes(b"")
    (folder / "validation").mkdir()
    data = read_source("pets", folder_entry(folder)).images("pets")
    told = "\n".join(map(str, data.remarks))
    assert [len(remark.names) for remark in data.remarks] == [1] * 5
    for name in ("train/cat/.DS_Store", "train/cat/a.heic", "train/list.csv", ": a.csv", "validat"):
        assert name in told
    (folder / "train" / "cat" / "deep").mkdir()
    (folder / "train" / "cat" / "deep" / "a.png").write_bytes(b"")
    (folder / "test" / "eel").mkdir()
    (folder / "test" / "eel" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 faults") as caught:
        read_source("pets", folder_entry(folder)).images("pets")
    assert "deep: holds 1 images below a class folder" in str(caught.value)
    assert "split test, class 'eel': no image for training" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_all_that_is_no_regular_file_is_listed(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cat" / "a.jpg")
    (folder / "test" / "b.png").symlink_to("/dev/zero")
    (folder / "train" / "dog" / "c.png").symlink_to("nowhere")
    source = read_source("pets", folder_entry(folder))
    assert len(source.file_faults()) == 3
    with pytest.raises(InputError, match="3 faults") as caught:
        source.images("pets")
    assert str(caught.value).count("is a named pipe, a socket or a device") == 2
    assert "c.png: a link to nothing" in str(caught.value)


def test_files_that_go_after_they_were_listed_are_named_together(folder: Path) -> None:
    data = read_source("pets", folder_entry(folder)).images("pets")
    for name in ("train/cat/0.png", "test/dog/0.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="2 faults") as caught:
        list(data.images)
    assert "train/cat/0.png" in str(caught.value)
    assert "test/dog/0.png" in str(caught.value)


def test_a_table_is_read_strictly(folder: Path) -> None:
    entry = {"source": "csv_file", "path": str(folder / "a.csv"), "templates": ["a {}."]}
    for text, rule in (
        ('path,label\n"train/cat/0.png,cat\n', "every quote closed"),
        ("path,label\ntrain/cat/0.png,cat,x\n", "line 2: more values than columns"),
        ("path,label,label\n", "column 'label': stands 2 times"),
        ("path,label\n/etc/passwd,cat\n", "no suffix of an image"),
        ("path,label\n/dev/zero,cat\n", "is a named pipe, a socket or a device"),
    ):
        (folder / "a.csv").write_text(text)
        with pytest.raises(InputError, match=rule):
            read_source("pets", entry).images("pets")
