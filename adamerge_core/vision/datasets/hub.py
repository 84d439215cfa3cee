"""Source `hub`: a data set of the catalogue, from its files on the Hugging Face hub.

Images are read from the hub's cache, never from the network: `adamerge data download` fetches them.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, ArchivedImage, DatasetImages
from adamerge_core.vision.datasets.hub_files import (
    PINS,
    HubCache,
    HubFile,
    Pin,
    fetching,
    pin_path,
    pinning,
    read_pin,
)
from adamerge_core.vision.datasets.hub_rows import HubTable, as_classes, suffix_of
from adamerge_core.vision.datasets.published import (
    HUB_SPLITS,
    REVISION,
    HubFiles,
    PublishedDataset,
    published_dataset,
    published_path,
)
from adamerge_core.vision.datasets.registry import Source, source

_LARGEST_VAL = 5000  # images, as the field sets aside: a tenth of train, and at most so many


@source("hub")
@dataclass(frozen=True)
class Hub(Source):
    """A data set of the catalogue (`adamerge data list`), from the hub's cache.

    val, and pretrain where it is asked for, are cut from the hub's train by the seed; what is left
    is train. The images of each split are shuffled.
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
    seed: int = 0
    line: str | None = None
    """The line of checkpoints whose class names a head is built from; null for the catalogue's."""
    revision: str | None = None
    """The commit that the pin must have; null for whichever it has."""
    pins: str = PINS
    """The folder of the pins, from the project's root."""
    cache: str | None = None
    """The hub's cache; null for huggingface_hub's own folder (HF_HUB_CACHE, HF_HOME)."""

    def faults(self, dataset: str) -> list[str]:
        try:
            published = published_dataset(self.dataset)
        except InputError as error:
            return [f"dataset: {error}"]
        if published.hub is None or published.refused:
            return [f"dataset = {self.dataset!r}: {published.refused}"]
        lines = [
            f"{name} = {value}: must be at least {least}"
            for name, least in {"train": 1, "val": 1, "test": 1, "pretrain": 0, "seed": 0}.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        if self.revision is not None and not REVISION.fullmatch(self.revision):
            lines.append(f"revision = {self.revision!r}: must be a commit of 40 hex digits")
        if self.line is not None and self.line not in (published.names_of, *published.variants):
            known = ", ".join((published.names_of, *published.variants))
            lines.append(f"line = {self.line!r}: no class names of this line; known are {known}")
        lines += [
            f"{name} = {value!r}: must be the path of a folder"
            for name in ("pins", "cache")
            if (value := getattr(self, name)) is not None and not value.strip()
        ]
        return lines or self._too_many(published)

    def _too_many(self, published: PublishedDataset) -> list[str]:
        """List splits that ask for more images than there are, a line each."""
        lines = []
        asked = self._val(published) + self.pretrain + (self.train or 1)
        if asked > published.images["train"]:
            lines.append(
                f"train, val and pretrain ask for {asked} images: must be at most "
                f"{published.images['train']}, as many as train has on the hub"
            )
        if (self.test or 0) > published.images["test"]:
            lines.append(f"test = {self.test}: must be at most {published.images['test']}")
        return lines

    def files(self) -> tuple[Path, ...]:
        return (_from_here(published_path(self.dataset)), pin_path(self.dataset, self.pins))

    def absent(self, path: Path) -> str:
        return f"does not exist; {fetching(self.dataset)}"

    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.pretrain else SPLITS[1:]

    def images(self, dataset: str) -> DatasetImages:
        """Give the images, of which all are checked before the first: the files by their digests,
        the numbers of images and classes by the catalogue.

        On the disk of the system's temporary files is a copy of the images that are used, while
        they are read.
        """
        published = published_dataset(self.dataset)
        pin = read_pin(pin_path(self.dataset, self.pins))
        hub = _pinned_hub(published, pin, self.revision)
        tables = {split: _table(hub, pin, split, self.cache) for split in HUB_SPLITS}
        labels = {split: _checked_labels(published, split, tables[split]) for split in HUB_SPLITS}
        rows = self._dealt(published)
        count = sum(map(len, rows.values()))
        images = _shuffled(tables, labels, rows)
        return DatasetImages(published.class_names(self.line), published.templates, count, images)

    def _val(self, published: PublishedDataset) -> int:
        tenth = max(1, published.images["train"] // 10)
        return min(tenth, _LARGEST_VAL) if self.val is None else self.val

    def _dealt(self, published: PublishedDataset) -> dict[str, np.ndarray]:
        """Deal the rows of the hub's splits to those of the suite, each shuffled."""
        rng = np.random.default_rng(self.seed)
        train = rng.permutation(published.images["train"])
        test = rng.permutation(published.images["test"])
        val, pretrain = self._val(published), self.pretrain
        left = train[val + pretrain :]
        rows = {
            "pretrain": train[val : val + pretrain],
            "train": left[: self.train],
            "val": train[:val],
            "test": test[: self.test],
        }
        return {split: rows[split] for split in self.splits()}


def _from_here(path: Path) -> Path:
    """Name a file by its path from the working directory, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _pinned_hub(published: PublishedDataset, pin: Pin, revision: str | None) -> HubFiles:
    """Give how the data set is read. Raises InputError where its pin is of something else."""
    hub = published.hub
    if hub is None:
        raise InputError(f"data set {published.name}: {published.refused}")
    faults = []
    if (pin.dataset, pin.hub_id) != (published.name, hub.id):
        faults.append(f"is of {pin.hub_id}; the catalogue has {hub.id}: {pinning(published.name)}")
    wanted = revision or hub.revision
    if wanted not in (None, pin.revision):
        again = f"adamerge data pin {published.name} --revision {wanted}"
        faults.append(f"is of commit {pin.revision}; asked for is {wanted}: {again}")
    if faults:
        raise InputError.listing(f"the pin of data set {published.name}", faults)
    return hub


def _table(hub: HubFiles, pin: Pin, split: str, folder: str | None) -> HubTable:
    """Give a split's rows. Raises InputError listing files that the cache lacks or has broken."""
    cache, files = HubCache.of(pin, folder), pin.files[split]
    faults = cache.faults(files)
    if faults:
        subject = f"data set {pin.dataset}, split {split}: not in {cache.root}; "
        raise InputError.listing(subject + fetching(pin.dataset), faults, shown=10)
    return HubTable(hub, [_named(cache, file) for file in files])


def _named(cache: HubCache, file: HubFile) -> tuple[str, Path]:
    return file.path, cache.path(file)


def _checked_labels(published: PublishedDataset, split: str, table: HubTable) -> np.ndarray:
    """Read a split's labels as indices of classes, int64 [N].

    Raises InputError where the numbers of images or classes are not the catalogue's.
    """
    subject = f"data set {published.name}, split {split}"
    stored = table.labels()
    if len(stored) != published.images[split]:
        raise InputError(
            f"{subject}: has {len(stored)} images; the catalogue has {published.images[split]}: "
            "another data set, or another version of it; pin a commit that has so many"
        )
    return as_classes(stored, published.labels, len(published.classes), subject)


def _shuffled(
    tables: dict[str, HubTable], labels: dict[str, np.ndarray], rows: dict[str, np.ndarray]
) -> Iterator[ArchivedImage]:
    """Yield the images of each split in the order of its rows.

    The files are read in their own order, into a temporary file, from which the images are taken in
    the order that is asked for: memory holds one at a time.
    """
    for hub_split, table in tables.items():
        splits = {s: r for s, r in rows.items() if (s == "test") == (hub_split == "test")}
        wanted = np.zeros(len(labels[hub_split]), dtype=bool)
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
                    label = int(labels[hub_split][row])
                    yield ArchivedImage(split, label, suffix_of(content), content, name)
