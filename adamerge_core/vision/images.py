"""Image archives and prepared arrays. Nothing here imports torch."""

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp")

_SHOWN_FAULTS = 20


@dataclass(frozen=True)
class ArchivedImage:
    """One encoded image of a task."""

    split: str
    label: int
    suffix: str
    content: bytes


@dataclass(frozen=True)
class LabeledImages:
    """Images of one split of a task with their classes."""

    images: np.ndarray
    """uint8 [N, H, W, 3], memory-mapped."""
    labels: np.ndarray
    """int64 [N]."""

    @classmethod
    def open(cls, images: Path, labels: Path) -> "LabeledImages":
        """Raises InputError when a file is missing, broken or of another form."""
        arrays = cls(open_array(images, 4), open_array(labels, 1))
        if len(arrays.images) != len(arrays.labels):
            raise InputError(
                f"{images}: {len(arrays.images)} images and {len(arrays.labels)} in {labels}; "
                "prepare the task again"
            )
        return arrays


def open_array(path: Path, dimensions: int) -> np.ndarray:
    """A .npy file, memory-mapped read-only. Raises InputError when it is missing or broken."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make it with `dvc repro`") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); make it again") from error
    if array.ndim != dimensions:
        raise InputError(
            f"{path}: shape {list(array.shape)}, but {dimensions} dimensions are needed"
        )
    return array


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def encode(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as PNG, lightly compressed."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_archive(
    path: Path, classes: Sequence[str], templates: Sequence[str], images: Iterable[ArchivedImage]
) -> None:
    """Write a task's images to one zip file: classes.json and <split>/<label>/<index><suffix>.

    The bytes depend on the arguments alone: entries carry no time and are stored as they are.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        names = {"classes": list(classes), "templates": list(templates)}
        archive.writestr(zipfile.ZipInfo("classes.json"), json.dumps(names, indent=1))
        for index, image in enumerate(images):
            name = f"{image.split}/{image.label:04d}/{index:06d}{image.suffix}"
            archive.writestr(zipfile.ZipInfo(name), image.content)


def folder_images(
    folder: Path, seed: int, val_fraction: float, pretrain_per_class: int
) -> tuple[list[str], Iterator[ArchivedImage]]:
    """Classes and images of <folder>/<split>/<class>/<file>, shuffled from `seed`.

    Splits `train` and `test` must be there. Where `val` is not, that fraction of each class's
    training images is; where `pretrain` is not, that number a class. Raises InputError listing all
    that is missing or empty.
    """
    found = _list_folder(folder)
    classes = sorted({name for by_class in found.values() for name in by_class})
    rng = np.random.default_rng(seed)
    for by_class in found.values():
        for files in by_class.values():
            rng.shuffle(files)
    set_aside: dict[str, Callable[[int], int]] = {
        "pretrain": lambda count: min(pretrain_per_class, count // 2),
        "val": lambda count: max(1, round(val_fraction * count)),
    }
    for split, count_of in set_aside.items():
        if split not in found:
            found[split] = _set_aside(found["train"], count_of)
    _check_left(folder, found)
    entries = [
        (split, classes.index(name), file)
        for split, by_class in found.items()
        for name, files in by_class.items()
        for file in files
    ]
    rng.shuffle(entries)
    return classes, (ArchivedImage(s, c, f.suffix.lower(), f.read_bytes()) for s, c, f in entries)


def _set_aside(
    train: dict[str, list[Path]], count_of: Callable[[int], int]
) -> dict[str, list[Path]]:
    """Take `count_of(number of files)` files of each class out of `train`."""
    aside = {}
    for name, files in train.items():
        count = count_of(len(files))
        aside[name], train[name] = files[:count], files[count:]
    return aside


def _check_left(folder: Path, found: dict[str, dict[str, list[Path]]]) -> None:
    """Raise one InputError for all that setting images aside has emptied."""
    faults = [
        f"split train, class {name}: no image is left after setting some aside; give 3 or more, or "
        "folders val and pretrain"
        for name, files in found["train"].items()
        if not files
    ]
    faults += [
        f"split {split}: too few training images to set any aside; give more, or a folder {split}"
        for split, by_class in found.items()
        if not any(by_class.values())
    ]
    if faults:
        raise InputError.listing(f"data folder {folder}", faults)


def _list_folder(folder: Path) -> dict[str, dict[str, list[Path]]]:
    if not folder.is_dir():
        raise InputError(
            f"data folder {folder}: no such folder; give one that holds train/<class>/<image> and "
            "test/<class>/<image>"
        )
    found = {
        split: {
            entry.name: sorted(f for f in entry.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
            for entry in sorted((folder / split).iterdir())
            if entry.is_dir()
        }
        for split in ("pretrain", "train", "val", "test")
        if (folder / split).is_dir()
    }
    faults = [
        f"split {name}: no folder {folder / name}"
        for name in ("train", "test")
        if name not in found
    ]
    for split, by_class in found.items():
        if not by_class:
            faults.append(f"split {split}: {folder / split} has no class folder")
        faults += [
            f"split {split}, class {name}: no image in {folder / split / name} "
            f"(of {', '.join(IMAGE_SUFFIXES)})"
            for name, files in by_class.items()
            if not files
        ]
    if faults:
        raise InputError.listing(f"data folder {folder}", faults)
    return found


def read_archive(path: Path, size: int) -> tuple[dict[str, list[str]], dict[str, LabeledImages]]:
    """Decode an archive: ({"classes", "templates"}, images and labels by split).

    Each image is resized so that its shorter side is `size` pixels, then cropped to the middle.
    Raises InputError listing every image that cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise InputError(f"{path}: not a whole zip file ({error}); make it again") from error
    with archive:
        names = json.loads(archive.read("classes.json"))
        pixels: dict[str, list[np.ndarray]] = {}
        labels: dict[str, list[int]] = {}
        faults = []
        for entry in archive.namelist():
            if entry == "classes.json":
                continue
            split, label, _ = entry.split("/")
            try:
                pixels.setdefault(split, []).append(decode(archive.read(entry), size))
                labels.setdefault(split, []).append(int(label))
            except Exception as error:  # PIL raises many types for a broken file
                faults.append(f"{entry} (class {names['classes'][int(label)]}): {error}")
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        shown = faults[:_SHOWN_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise InputError.listing(
            f"{path}: images that cannot be read; remove or replace them", shown
        )
    return names, {
        split: LabeledImages(np.stack(stack), np.array(labels[split], dtype=np.int64))
        for split, stack in pixels.items()
    }


def decode(content: bytes, size: int) -> np.ndarray:
    """An encoded image as uint8 [size, size, 3]. Raises what PIL raises for a broken one."""
    with Image.open(io.BytesIO(content)) as file:
        image = _eight_bits(file).convert("RGB")
    width, height = image.size
    if (width, height) != (size, size):
        scale = size / min(width, height)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray values scaled to 8 bits; Pillow's own conversion clips them to white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
