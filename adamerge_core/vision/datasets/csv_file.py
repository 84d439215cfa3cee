"""Source `csv_file`: a user's images listed with their classes in a CSV file."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, DatasetImages
from adamerge_core.vision.datasets.labeled_files import SHOWN, Files, LabeledFiles
from adamerge_core.vision.datasets.registry import source


@source("csv_file")
@dataclass(frozen=True)
class CsvFile(LabeledFiles):
    """Images in a table with a row each: path (from the CSV file's folder), label and, if the user
    gives it, split.

    The images are fetched again when the CSV file changes, not when an image does.
    """

    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    """Where there is no such column, or it is empty in a row, an image is for training."""
    test_fraction: float = 0.2
    """Of each class's training images, for the split test where no row is of it."""

    def faults(self, dataset: str) -> list[str]:
        return [*super().faults(dataset), *self.share_faults("test_fraction")]

    def images(self, dataset: str) -> DatasetImages:
        table, share = Path(self.path), self.test_fraction
        files = self._listed(table)
        return self.dealt(f"data file {table}", table.parent, files, test_fraction=share)

    def _listed(self, table: Path) -> Files:
        """List the images. Raises InputError listing all that is wrong with the table."""
        faults: list[str] = []
        found: Files = {split: {} for split in SPLITS}
        first: dict[Path, int] = {}
        for line, row in self._rows(table):
            path, label = row[self.path_column].strip(), row[self.label_column].strip()
            split = row.get(self.split_column, "").strip() or "train"
            file = Path(os.path.normpath(table.parent / path))
            faults += [f"line {line}: {fault}" for fault in _row_faults(path, file, label, split)]
            if first.setdefault(file, line) != line:
                faults.append(f"line {line}: {path} stands in line {first[file]} too; remove one")
            found.get(split, {}).setdefault(label, []).append(file)
        faults += [
            f"split {split}, label {label!r}: no image for training has it; mend it or give some"
            for split, by_label in found.items()
            for label in by_label
            if label and label not in found["train"]
        ]
        if not found["train"]:
            faults.append("there is no image for training; give rows of split train")
        if faults:
            raise InputError.listing(f"data file {table}", faults, shown=SHOWN)
        return {
            split: {label: sorted(by_label[label]) for label in sorted(by_label)}
            for split, by_label in found.items()
            if by_label and split in self.splits()
        }

    def _rows(self, table: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the rows with their lines in the file; a value that is missing is empty."""
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file, restval="", restkey="")
                header = rows.fieldnames or []
                missing = [c for c in (self.path_column, self.label_column) if c not in header]
                if missing:
                    listed = ", ".join(header) or "none"
                    faults = [
                        f"column {name!r}: is missing; there are {listed}" for name in missing
                    ]
                    raise InputError.listing(f"data file {table}", faults)
                for row in rows:
                    yield rows.line_num, row
        except OSError as error:
            raise InputError(f"data file {table}: {error.strerror}; mend the path") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"data file {table}: not a CSV file in UTF-8 ({error})") from error


def _row_faults(path: str, file: Path, label: str, split: str) -> Iterator[str]:
    if not path:
        yield "no path"
    elif not file.is_file():
        yield f"{path}: no such file"
    if not label:
        yield f"{path}: no label"
    if split not in SPLITS:
        yield f"{path}: split {split!r}; must be one of {', '.join(SPLITS)}"
