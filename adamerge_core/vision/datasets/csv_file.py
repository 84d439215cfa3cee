"""Source `csv_file`: a user's images listed with their classes in a CSV file."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, DatasetImages, Remark
from adamerge_core.vision.datasets.labeled_files import (
    SHOWN,
    Files,
    LabeledFiles,
    class_faults,
)
from adamerge_core.vision.datasets.registry import source
from adamerge_core.vision.datasets.user_files import file_fault, outside, read_file
from adamerge_core.vision.decoding import IMAGE_SUFFIXES
from adamerge_core.vision.names import printable

MAX_TABLE_BYTES = 2**27
"""Of a CSV file."""


@source("csv_file")
@dataclass(frozen=True)
class CsvFile(LabeledFiles):
    """Images in a table with a row each: path (from the CSV file's folder), label and, if the user
    gives it, split.

    The table is in UTF-8, its values separated by commas. Images may lie anywhere; those outside
    of the CSV file's folder are counted. The images are fetched again when the CSV file changes,
    not when an image does.
    """

    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    """Where there is no such column, or it is empty in a row, an image is for training."""
    test_fraction: float = 0.2
    """Of each class's training images, for the split test where no row is of it."""

    def faults(self, dataset: str) -> list[str]:
        columns = (self.path_column, self.label_column, self.split_column)
        same = [f"columns {columns}: must be three"] if len(set(columns)) < 3 else []
        return [*super().faults(dataset), *self.share_faults("test_fraction"), *same]

    def images(self, dataset: str) -> DatasetImages:
        table, share = Path(self.path), self.test_fraction
        subject = f"data file {printable(str(table))}"
        files = self._listed(subject, table)
        listed = [f for by_label in files.values() for each in by_label.values() for f in each]
        remarks = []
        if far := outside(table.parent, listed):
            remarks.append(Remark("images lie outside of the CSV file's folder", far))
        unused = [
            f"{split} ({sum(map(len, files[split].values()))} images)"
            for split in files
            if split not in self.splits()
        ]
        if unused:
            remarks.append(Remark("splits are left out, as pretrain_per_class is 0", unused))
        used = {split: by_label for split, by_label in files.items() if split in self.splits()}
        return self.dealt(subject, table.parent, used, remarks, test_fraction=share)

    def _listed(self, subject: str, table: Path) -> Files:
        """List the images. Raises InputError listing all that is wrong with the table."""
        faults: list[str] = []
        found: Files = {split: {} for split in SPLITS}
        first: dict[Path, int] = {}
        for line, row in self._rows(subject, table):
            if None in row:  # where DictReader puts the values that no column has
                faults.append(f"line {line}: more values than columns; quote a value with a comma")
                continue
            path, label = row[self.path_column].strip(), row[self.label_column].strip()
            split = row.get(self.split_column, "").strip() or "train"
            file = Path(os.path.normpath(table.parent / path))
            faults += [f"line {line}: {fault}" for fault in _row_faults(path, file, label, split)]
            if first.setdefault(file, line) != line:
                faults.append(
                    f"line {line}: {printable(path)} stands in line {first[file]} too; remove one"
                )
            found.get(split, {}).setdefault(label, []).append(file)
        faults += class_faults(
            {split: {n: f for n, f in by.items() if n} for split, by in found.items()}
        )
        if not found["train"]:
            faults.append("there is no image for training; give rows of split train")
        if faults:
            raise InputError.listing(subject, faults, shown=SHOWN)
        return {
            split: {label: sorted(by_label[label]) for label in sorted(by_label)}
            for split, by_label in found.items()
            if by_label
        }

    def _rows(self, subject: str, table: Path) -> Iterator[tuple[int, dict[str | None, str]]]:
        """Yield the rows with their lines in the file; a value that is missing is empty."""
        content = io.BytesIO(read_file(table, subject, MAX_TABLE_BYTES))
        try:
            lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
            rows = csv.DictReader(lines, restval="", strict=True)
            self._check_header(subject, list(rows.fieldnames or []))
            for row in rows:
                yield rows.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"{subject}: not a CSV file in UTF-8 ({error}); save it as CSV, UTF-8, its values "
                "separated by commas and every quote closed"
            ) from error

    def _check_header(self, subject: str, header: list[str]) -> None:
        wanted = (self.path_column, self.label_column)
        listed = ", ".join(map(printable, header[:SHOWN])) or "none"
        more = f" and {len(header) - SHOWN} more" if len(header) > SHOWN else ""
        faults = [
            f"column {name!r}: is missing; there are {listed[:1000]}{more}"
            for name in wanted
            if name not in header
        ]
        counts = Counter(header)
        faults += [
            f"column {name!r}: stands {counts[name]} times; rename all but one"
            for name in (*wanted, self.split_column)
            if counts[name] > 1
        ]
        if faults:
            raise InputError.listing(subject, faults)


def _row_faults(path: str, file: Path, label: str, split: str) -> Iterator[str]:
    shown = printable(path)[:300]
    if not path:
        yield "no path"
    elif fault := file_fault(file):
        yield f"{shown}: {fault}"
    elif file.suffix.lower() not in IMAGE_SUFFIXES:
        yield f"{shown}: no suffix of an image; must be one of {', '.join(IMAGE_SUFFIXES)}"
    if not label:
        yield f"{shown}: no label"
    if split not in SPLITS:
        yield f"{shown}: split {printable(split)[:60]!r}; must be one of {', '.join(SPLITS)}"
