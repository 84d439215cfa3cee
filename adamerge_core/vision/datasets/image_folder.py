"""Source `image_folder`: a user's images in a folder a class."""

from dataclasses import dataclass
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import DatasetImages
from adamerge_core.vision.datasets.labeled_files import Files, LabeledFiles
from adamerge_core.vision.datasets.registry import source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp")


@source("image_folder")
@dataclass(frozen=True)
class ImageFolder(LabeledFiles):
    """Images <path>/<split>/<class>/<file>; splits train and test must be there."""

    def images(self, dataset: str) -> DatasetImages:
        folder = Path(self.path)
        return self.dealt(f"data folder {folder}", folder, _listed(folder, self.splits()))


def _listed(folder: Path, splits: tuple[str, ...]) -> Files:
    """List the folder's images. Raises InputError listing all that is missing or empty."""
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
        for split in splits
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
