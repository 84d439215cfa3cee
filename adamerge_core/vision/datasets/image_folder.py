"""Source `image_folder`: a user's images in a folder a class."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, DatasetImages, Remark
from adamerge_core.vision.datasets.labeled_files import (
    SHOWN,
    Files,
    LabeledFiles,
    class_faults,
    user_name,
)
from adamerge_core.vision.datasets.registry import source
from adamerge_core.vision.datasets.user_files import is_hidden, is_image
from adamerge_core.vision.decoding import IMAGE_SUFFIXES
from adamerge_core.vision.names import printable


@source("image_folder")
@dataclass(frozen=True)
class ImageFolder(LabeledFiles):
    """Images <path>/<split>/<class>/<file>; splits train and test must be there.

    A file is an image by its suffix. Hidden files, other files and folders that hold no image are
    left out and counted; images that lie elsewhere than in a class folder are an error.
    """

    def images(self, dataset: str) -> DatasetImages:
        folder = Path(self.path)
        subject = f"data folder {printable(str(folder))}"
        if not folder.is_dir():
            raise InputError(
                f"{subject}: no such folder; give one that holds train/<class>/<image> and "
                "test/<class>/<image>"
            )
        listing = _Listing(folder)
        faults = self.file_faults() or listing.read(self.splits())
        if faults:
            raise InputError.listing(subject, faults, shown=SHOWN)
        return self.dealt(subject, folder, listing.found, listing.remarks())


@dataclass
class _Listing:
    """What a folder holds: images by split and class, and what else."""

    folder: Path
    found: Files = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarked: dict[str, list[str]] = field(default_factory=dict)
    """Names by what is to be said of them."""

    def read(self, splits: tuple[str, ...]) -> list[str]:
        """Read the listing of the folder; give all that is wrong or missing there."""
        for entry in self._entries(self.folder):
            if entry.is_dir() and entry.name in splits:
                self.found[entry.name] = self._read_split(entry)
            elif entry.is_dir() and entry.name in SPLITS:
                self._remark("splits are left out, as pretrain_per_class is 0", entry)
            elif entry.is_dir():
                self._remark(f"folders are none of {', '.join(splits)} and left out", entry)
            else:
                self._remark("files beside the splits are left out", entry)
        self.found = {split: self.found[split] for split in SPLITS if split in self.found}
        self.faults += [
            f"split {name}: no folder {printable(str(self.folder / name))}"
            for name in ("train", "test")
            if name not in self.found
        ]
        if "train" in self.found:
            self.faults += class_faults(self.found)
        return self.faults

    def remarks(self) -> list[Remark]:
        return [Remark(what, names) for what, names in self.remarked.items()]

    def _read_split(self, folder: Path) -> dict[str, list[Path]]:
        by_class = {}
        for entry in self._entries(folder):
            if entry.is_dir():
                by_class[entry.name] = self._read_class(folder.name, entry)
            elif is_image(entry):
                self._fault(entry, "an image outside of a class folder; move it into one")
            else:
                self._remark("files beside the class folders are left out", entry)
        if not by_class:
            self.faults.append(f"split {folder.name}: {printable(str(folder))} has no class folder")
        return by_class

    def _read_class(self, split: str, folder: Path) -> list[Path]:
        images = []
        for entry in self._entries(folder):
            if entry.is_dir():
                self._read_nested(entry)
            elif is_image(entry):
                images.append(entry)
            else:
                known = ", ".join(IMAGE_SUFFIXES)
                self._remark(f"files have none of the suffixes {known} and are left out", entry)
        if not images:
            shown = printable(folder.name)
            self.faults.append(
                f"split {split}, class {shown}: no image in {printable(str(folder))} "
                f"(of {', '.join(IMAGE_SUFFIXES)})"
            )
        return images

    def _read_nested(self, folder: Path) -> None:
        """A folder in a class folder: a fault if it holds images, which would be missing."""
        count = sum(
            is_image(Path(name)) and not is_hidden(name)
            for _, _, names in os.walk(folder)
            for name in names
        )
        if count:
            self._fault(folder, f"holds {count} images below a class folder; move them up into it")
        else:
            self._remark("folders in class folders, without images, are left out", folder)

    def _entries(self, folder: Path) -> list[Path]:
        """List a folder, sorted; what is hidden in it is left out."""
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            self._fault(folder, f"cannot be read ({error.strerror})")
            return []
        shown = []
        for entry in entries:
            if is_hidden(entry.name):
                self._remark("hidden files and folders are left out", entry)
            else:
                shown.append(entry)
                if entry.is_symlink() and entry.is_dir():
                    self._remark("folders are links, behind which DVC sees no change", entry)
        return shown

    def _fault(self, path: Path, text: str) -> None:
        self.faults.append(f"{printable(str(path))}: {text}")

    def _remark(self, what: str, path: Path) -> None:
        self.remarked.setdefault(what, []).append(user_name(self.folder, path))
