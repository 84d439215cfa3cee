"""Source `miniature`: images of the embedded tasks, drawn or cut from installed packages."""

from collections.abc import Iterator
from dataclasses import dataclass

from adamerge_core.vision.archive import SPLITS, ArchivedImage, DatasetImages, encode
from adamerge_core.vision.datasets.registry import Source, source
from adamerge_core.vision.miniature.tasks import (
    TASK_NAMES,
    class_names,
    images,
    module_name,
    supply,
    templates,
)


@source("miniature")
@dataclass(frozen=True)
class Miniature(Source):
    """Images of the embedded task that has the data set's name, so many a split."""

    seed: int
    train: int
    val: int
    test: int
    pretrain: int = 0
    """0 for no such split."""

    def modules(self, dataset: str) -> tuple[str, ...]:
        return (__name__, module_name(dataset))

    def faults(self, dataset: str) -> list[str]:
        lines = [
            f"{name} = {getattr(self, name)}: must be at least {least}"
            for name, least in {"seed": 0, "train": 1, "val": 1, "test": 1, "pretrain": 0}.items()
            if getattr(self, name) < least
        ]
        if dataset not in TASK_NAMES:
            known = ", ".join(TASK_NAMES)
            return [
                *lines,
                f"source = 'miniature': no miniature is called {dataset!r}; use {known}",
            ]
        return lines + [
            f"{split} = {getattr(self, split)}: must be at most {count}, as many as there are"
            for split, count in supply(dataset).items()
            if getattr(self, split) > count
        ]

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if getattr(self, split))

    def images(self, dataset: str) -> DatasetImages:
        count = sum(getattr(self, split) for split in SPLITS)
        return DatasetImages(class_names(dataset), templates(dataset), count, self._drawn(dataset))

    def _drawn(self, dataset: str) -> Iterator[ArchivedImage]:
        for split in SPLITS:
            drawn = images(dataset, split, getattr(self, split), self.seed)
            for index, (pixels, label) in enumerate(drawn):
                name = f"{split} image {index}"
                yield ArchivedImage(split, label, ".png", encode(pixels), name)
