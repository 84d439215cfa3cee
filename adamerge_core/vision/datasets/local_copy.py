"""Source `local_copy`: a data set of the catalogue, from its authors' files on this machine.

torchvision's own classes read them, so their folders are as torchvision lays them out. Nothing is
fetched, and torch is imported when images are read, not before.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.published import PublishedDataset, published_dataset
from adamerge_core.vision.datasets.published_source import PublishedSource, Table
from adamerge_core.vision.datasets.registry import source
from adamerge_core.vision.datasets.user_files import read_file, tree_faults
from adamerge_core.vision.decoding import MAX_FILE_BYTES
from adamerge_core.vision.names import printable


@source("local_copy")
@dataclass(frozen=True, kw_only=True)
class LocalCopy(PublishedSource):
    """A data set of the catalogue, from a copy in torchvision's layout, with the field's splits.

    The files are not compared with digests: the numbers of images and classes are.
    """

    path: str
    """torchvision's `root`: the folder in which the data set's own folder lies."""

    def faults(self, dataset: str) -> list[str]:
        lines = super().faults(dataset)
        if not self.path.strip():
            lines.append(f"path = {self.path!r}: must be the path of a folder")
        return lines

    def refusal(self, published: PublishedDataset) -> str | None:
        original = published.original
        if original.refused:
            return original.refused
        if original.torchvision is None or original.splits is None:
            return published.refused or "has no copy in torchvision's layout: use the source hub"
        return None

    def files(self) -> tuple[Path, ...]:
        original = published_dataset(self.dataset).original
        return (*super().files(), *(Path(self.path) / name for name in original.files))

    def file_faults(self) -> list[str]:
        return [fault for path in self.files()[1:] for fault in tree_faults(path)]

    def tables(self, published: PublishedDataset) -> Mapping[str, Table]:
        splits = published.original.splits or {}
        return {
            split: _TorchvisionTable(
                f"{published.original.torchvision} split {split}",
                [each for name in _listed(splits[split]) for each in self._opened(published, name)],
            )
            for split in self.published_splits
        }

    def _opened(self, published: PublishedDataset, split: str) -> list[Any]:
        """Open a split with torchvision's class. Raises InputError with what torchvision says."""
        from torchvision import datasets

        name = str(published.original.torchvision)
        kind = getattr(datasets, name)
        values: dict[str, Any] = {"root": self.path}
        if name == "EMNIST":
            train, values["split"] = split.split("-")[1] == "train", split.split("-")[0]
            values["train"] = train
        elif name in _BY_TRAIN:
            values["train"] = split == "train"
        else:
            values["split"] = split
        if name in _BY_FILE:
            values["loader"] = Path
        try:
            return [kind(**values)]
        except MemoryError:
            raise
        except Exception as error:  # of torchvision, scipy and h5py, many types
            reason = str(error).replace(" You can use download=True to download it", "")
            files = ", ".join(published.original.files)
            raise InputError(
                f"data set {published.name}: torchvision cannot read {files} in {self.path} "
                f"({type(error).__name__}: {reason})"
            ) from error


_BY_TRAIN = ("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100")
"""Classes that take `train` in place of `split`."""

_BY_FILE = ("DTD", "Flowers102", "Food101", "RenderedSST2", "StanfordCars")
"""Classes that read a file an image through a `loader`: given the path, its bytes are kept."""


def _listed(splits: str | list[str]) -> list[str]:
    return [splits] if isinstance(splits, str) else list(splits)


@dataclass(frozen=True)
class _TorchvisionTable:
    """The rows of torchvision's data sets, one after the other."""

    name: str
    parts: list[Any]

    def labels(self) -> np.ndarray:
        return np.array([int(label) for part in self.parts for label in _labels_of(part)], np.int64)

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, bytes, str]]:
        start = 0
        for part in self.parts:
            for row in np.flatnonzero(wanted[start : start + len(part)]).tolist():
                yield start + row, *self._image(part, row, start + row)
            start += len(part)

    def _image(self, part: Any, row: int, place: int) -> tuple[bytes, str]:
        """Give an image's file, or its pixels as PNG, and its name."""
        name = f"{self.name} image {place}"
        try:
            image = part[row][0]
            if isinstance(image, Path):
                name = printable(image.name)
                return read_file(image, name, MAX_FILE_BYTES), name
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            return buffer.getvalue(), name
        except (MemoryError, InputError):
            raise
        except Exception as error:  # of PIL and torchvision
            raise InputError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error


def _labels_of(part: Any) -> Any:
    """Read the labels of all images, which most classes keep apart from them."""
    for name in ("targets", "labels"):
        found = getattr(part, name, None)
        if found is not None:
            return found
    return (part[row][1] for row in range(len(part)))
