"""What sources share that read a user's image files: how these are dealt to the splits."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, ArchivedImage, DatasetImages, Remark
from adamerge_core.vision.datasets.registry import Source
from adamerge_core.vision.datasets.user_files import read_file, tree_faults
from adamerge_core.vision.decoding import MAX_FILE_BYTES
from adamerge_core.vision.names import (
    alike_but_for_case,
    barred_in_paths,
    class_name_faults,
    printable,
)

Files = dict[str, dict[str, list[Path]]]
"""By split and class."""

SHOWN = 20
"""How many of a long list of faults are told."""


@dataclass(frozen=True)
class LabeledFiles(Source):
    """Image files of the user's, each of a class."""

    path: str
    templates: tuple[str, ...]
    """Prompts of the zero-shot head, with {} for the class name."""
    seed: int = 0
    """Of the order of the images, and of the choice of those that are set aside."""
    val_fraction: float = 0.1
    """Of each class's training images, for the split val where the user gives none."""
    pretrain_per_class: int = 0
    """Training images a class for the split pretrain; where the user gives this split, any number
    takes all of it. 0: there is no split pretrain, and what the user gives of it is left out."""

    def faults(self, dataset: str) -> list[str]:
        lines = [
            f"{name} = {getattr(self, name)}: must be at least 0"
            for name in ("seed", "pretrain_per_class")
            if getattr(self, name) < 0
        ]
        if not self.path.strip():
            rule = "must be the path of a file or folder; in a suite, none is the project itself"
            lines.append(f"path = {self.path!r}: {rule}")
        if barred := barred_in_paths(self.path):
            rule = f"must not hold the characters {barred}; rename the folder"
            lines.append(f"path = {self.path!r}: {rule}")
        lines += self.share_faults("val_fraction")
        if not self.templates:
            lines.append("templates: is empty; give at least one, as 'a photo of a {}.'")
        return (
            lines
            + [
                f"templates: {text!r} must hold {{}} once, for the class name, and no other brace"
                for text in self.templates
                if text.count("{}") != 1 or re.search("[{}]", text.replace("{}", ""))
            ]
            + [
                f"templates: {text!r} must be printable characters"
                for text in self.templates
                if not text.isprintable()
            ]
        )

    def share_faults(self, name: str) -> list[str]:
        """Say whether the parameter `name` is no share of images, above 0 and at most 1."""
        share = getattr(self, name)
        return [] if 0 < share <= 1 else [f"{name} = {share}: must be above 0 and at most 1"]

    def files(self) -> tuple[Path, ...]:
        return (Path(self.path),)

    def file_faults(self) -> list[str]:
        return tree_faults(Path(self.path))

    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.pretrain_per_class else SPLITS[1:]

    def dealt(
        self,
        subject: str,
        root: Path,
        files: Files,
        remarks: Sequence[Remark] = (),
        *,
        test_fraction: float | None = None,
    ) -> DatasetImages:
        """Deal files to the splits and shuffle them, both by the seed.

        files: sorted; the splits that they lack are set aside from train, test only where a
        fraction is given. root: the images are named by their paths from it. remarks: those that
        the reader of the files has; what is to be said of the classes is added.
        Raises InputError about `subject` listing the splits and classes without images.
        """
        given = {split: set(by_class) for split, by_class in files.items()}
        classes = sorted({name for by_class in files.values() for name in by_class})
        labels = {name: label for label, name in enumerate(classes)}
        rng = np.random.default_rng(self.seed)
        for by_class in files.values():
            for listed in by_class.values():
                rng.shuffle(listed)
        for split, count_of in self._set_aside(test_fraction).items():
            if split not in files:
                files[split] = _taken(files["train"], count_of)
        _check_left(subject, files)
        entries = [
            (split, labels[name], file)
            for split, by_class in files.items()
            for name, listed in by_class.items()
            for file in listed
        ]
        rng.shuffle(entries)
        images = _read(subject, root, entries)
        remarks = (*remarks, *_remarks_on_classes(given))
        return DatasetImages(classes, self.templates, len(entries), images, remarks)

    def _set_aside(self, test_fraction: float | None) -> dict[str, Callable[[int], int]]:
        """By split how many of so many training images of a class are set aside."""
        counts: dict[str, Callable[[int], int]] = {}
        if test_fraction is not None:
            counts["test"] = partial(_share, test_fraction)
        if self.pretrain_per_class:
            counts["pretrain"] = lambda count: min(self.pretrain_per_class, count // 2)
        return counts | {"val": partial(_share, self.val_fraction)}


def class_faults(files: Files) -> list[str]:
    """List what is wrong with the classes of given splits, a line each: their names, and those
    that no training image has.
    """
    faults = class_name_faults(dict.fromkeys(name for names in files.values() for name in names))
    return faults + [
        f"split {split}, class {printable(name)!r}: no image for training has it; mend the name, "
        "or give training images of it"
        for split, by_class in files.items()
        for name in by_class
        if name not in files.get("train", {})
    ]


def _remarks_on_classes(given: dict[str, set[str]]) -> Iterator[Remark]:
    for split in ("val", "test"):
        missing = sorted(given["train"] - given.get(split, given["train"]))
        if missing:
            yield Remark(f"classes have no image in the split {split} that is given", missing)
    for names in alike_but_for_case(sorted(given["train"])):
        yield Remark("classes differ in upper and lower case alone", names)


def _share(fraction: float, count: int) -> int:
    return max(1, round(fraction * count))


def _taken(train: dict[str, list[Path]], count_of: Callable[[int], int]) -> dict[str, list[Path]]:
    """Take `count_of(number of files)` files of each class out of `train`."""
    taken = {}
    for name, files in train.items():
        count = count_of(len(files))
        taken[name], train[name] = files[:count], files[count:]
    return taken


def _check_left(subject: str, files: Files) -> None:
    """Raise one InputError for all that setting images aside has emptied."""
    faults = [
        f"split train, class {name}: no image is left after setting some aside; give more"
        for name, listed in files["train"].items()
        if not listed
    ]
    faults += [
        f"split {split}: too few training images to set any aside; give more, or images of {split}"
        for split, by_class in files.items()
        if not any(by_class.values())
    ]
    if faults:
        raise InputError.listing(subject, faults)


def _read(
    subject: str, root: Path, entries: list[tuple[str, int, Path]]
) -> Iterator[ArchivedImage]:
    """Read the files; those that cannot be are listed in one InputError at the end."""
    faults = []
    for split, label, file in entries:
        name = user_name(root, file)
        try:
            content = read_file(file, name, MAX_FILE_BYTES)
        except InputError as error:
            faults.append(str(error))
        else:
            yield ArchivedImage(split, label, file.suffix.lower(), content, name)
    if faults:
        raise InputError.listing(f"{subject}: images that cannot be read", faults, shown=SHOWN)


def user_name(root: Path, file: Path) -> str:
    """Name a file by its path from `root`, or by its whole path if it lies elsewhere; printable."""
    path = file.relative_to(root) if file.is_relative_to(root) else file
    return printable(path.as_posix())
