"""What the sources share that read a data set of the catalogue: its splits, counts and classes.

Nothing here imports torch.
"""

import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, ArchivedImage, DatasetImages
from adamerge_core.vision.datasets.published import (
    HUB_SPLITS,
    PublishedDataset,
    published_dataset,
    published_path,
)
from adamerge_core.vision.datasets.registry import Source

_LARGEST_VAL = 5000  # images, as the field sets aside: a tenth of train, and at most so many

_SUFFIXES = {
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"II": ".tif",
    b"MM": ".tif",
    b"P5": ".pgm",
    b"P6": ".ppm",
}


class Table(Protocol):
    """The rows of one published split."""

    def labels(self) -> np.ndarray:
        """Read the labels of all rows: int64 [N], indices of classes."""

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, bytes, str]]:
        """Yield row, content and name of each row that `wanted`, bool [N], has, in their order."""


@dataclass(frozen=True, kw_only=True)
class PublishedSource(Source):
    """A data set of the catalogue.

    val, and pretrain where it is asked for, are cut from the published train by the seed; what is
    left is train. The images of each split are shuffled.
    """

    dataset: str
    """Its name in the catalogue."""
    train: int | None = None
    """Images; null for all that are left."""
    val: int | None = None
    """Images; null for a tenth of train, at most 5,000."""
    test: int | None = None
    """Images; null for all."""
    pretrain: int = 0
    """Images; 0 for no such split."""
    test_only: bool = False
    """Whether test is all there is: enough where models are imported, and nothing chosen by val.
    The published train is not fetched then."""
    seed: int = 0
    line: str | None = None
    """The line of checkpoints whose class names a head is built from; null for the catalogue's."""

    @abstractmethod
    def refusal(self, published: PublishedDataset) -> str | None:
        """Say why this source cannot read the data set; None where it can."""

    @abstractmethod
    def tables(self, published: PublishedDataset) -> Mapping[str, Table]:
        """Give the rows by split of HUB_SPLITS, the files checked. Raises InputError."""

    def faults(self, dataset: str) -> list[str]:
        try:
            published = published_dataset(self.dataset)
        except InputError as error:
            return [f"dataset: {error}"]
        if refusal := self.refusal(published):
            return [f"dataset = {self.dataset!r}: {refusal}"]
        lines = [
            f"{name} = {value}: must be at least {least}"
            for name, least in {"train": 1, "val": 1, "test": 1, "pretrain": 0, "seed": 0}.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        if self.line is not None and self.line not in (published.names_of, *published.variants):
            known = ", ".join((published.names_of, *published.variants))
            lines.append(f"line = {self.line!r}: no class names of this line; known are {known}")
        if self.test_only and (self.train, self.val, self.pretrain) != (None, None, 0):
            lines.append("test_only = True: goes with no train, val or pretrain; remove them")
        return lines or self._too_many(published)

    def _too_many(self, published: PublishedDataset) -> list[str]:
        """List splits that ask for more images than there are, a line each."""
        lines = []
        asked = self._val(published) + self.pretrain + (self.train or 1)
        if asked > published.images["train"]:
            lines.append(
                f"train, val and pretrain ask for {asked} images: must be at most "
                f"{published.images['train']}, as many as the published train has"
            )
        if (self.test or 0) > published.images["test"]:
            lines.append(f"test = {self.test}: must be at most {published.images['test']}")
        return lines

    @property
    def published_splits(self) -> tuple[str, ...]:
        """Which of HUB_SPLITS are read."""
        return ("test",) if self.test_only else HUB_SPLITS

    def files(self) -> tuple[Path, ...]:
        return (_from_here(published_path(self.dataset)),)

    def splits(self) -> tuple[str, ...]:
        if self.test_only:
            return ("test",)
        return SPLITS if self.pretrain else SPLITS[1:]

    def images(self, dataset: str) -> DatasetImages:
        """Give the images, after the numbers of images and classes are compared with the
        catalogue's.

        On the disk of the system's temporary files is a copy of the images that are used, while
        they are read.
        """
        published = published_dataset(self.dataset)
        if refusal := self.refusal(published):
            raise InputError(f"data set {self.dataset}: {refusal}")
        tables = self.tables(published)
        labels = {split: _checked_labels(published, split, tables[split]) for split in tables}
        rows = self._dealt(published)
        count = sum(map(len, rows.values()))
        classes = published.class_names(self.line)
        return DatasetImages(classes, published.templates, count, _shuffled(tables, labels, rows))

    def _val(self, published: PublishedDataset) -> int:
        tenth = max(1, published.images["train"] // 10)
        return min(tenth, _LARGEST_VAL) if self.val is None else self.val

    def _dealt(self, published: PublishedDataset) -> dict[str, np.ndarray]:
        """Deal the rows of the published splits to those of the suite, each shuffled."""
        rng = np.random.default_rng(self.seed)
        train = rng.permutation(published.images["train"])
        test = rng.permutation(published.images["test"])
        val, pretrain = self._val(published), self.pretrain
        rows = {
            "pretrain": train[val : val + pretrain],
            "train": train[val + pretrain :][: self.train],
            "val": train[:val],
            "test": test[: self.test],
        }
        return {split: rows[split] for split in self.splits()}


def _from_here(path: Path) -> Path:
    """Name a file by its path from the working directory, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _checked_labels(published: PublishedDataset, split: str, table: Table) -> np.ndarray:
    """Read a split's labels. Raises InputError where the number of images is not the catalogue's,
    or a class has none.
    """
    subject = f"data set {published.name}, split {split}"
    labels = table.labels()
    if len(labels) != published.images[split]:
        raise InputError(
            f"{subject}: has {len(labels)} images; the catalogue has {published.images[split]}: "
            "another data set, or another version of it; give one that has so many"
        )
    found, classes = np.unique(labels), len(published.classes)
    if not np.array_equal(found, np.arange(classes)):
        raise InputError(
            f"{subject}: has {len(found)} labels, {found[0]} to {found[-1]}; the catalogue has "
            f"{classes} classes, each with an image: another data set, or another version of it"
        )
    return labels


def _shuffled(
    tables: Mapping[str, Table], labels: dict[str, np.ndarray], rows: dict[str, np.ndarray]
) -> Iterator[ArchivedImage]:
    """Yield the images of each split in the order of its rows.

    The files are read in their own order, into a temporary file, from which the images are taken in
    the order that is asked for: memory holds one at a time.
    """
    for published_split, table in tables.items():
        splits = {s: r for s, r in rows.items() if (s == "test") == (published_split == "test")}
        wanted = np.zeros(len(labels[published_split]), dtype=bool)
        wanted[np.concatenate(list(splits.values()))] = True
        with tempfile.TemporaryFile() as spool:
            places: dict[int, tuple[int, int, str]] = {}
            for row, content, name in table.images(wanted):
                places[row] = (spool.tell(), len(content), name)
                spool.write(content)
            for split, chosen in splits.items():
                for row in chosen.tolist():
                    start, size, name = places[row]
                    spool.seek(start, os.SEEK_SET)
                    content = spool.read(size)
                    label = int(labels[published_split][row])
                    yield ArchivedImage(split, label, suffix_of(content), content, name)


def suffix_of(content: bytes) -> str:
    """Give the suffix of an image file by its first bytes; .bin for what is not known."""
    for magic, suffix in _SUFFIXES.items():
        if content.startswith(magic):
            return suffix
    return ".bin"
