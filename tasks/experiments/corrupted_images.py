"""The corrupted tasks' images, as they are and under a corruption."""

from adamerge_core.vision.images import LabeledImages, open_images, open_labels
from tasks.graph import paths
from tasks.running.work import Work

CLEAN = "clean"
"""In the place of a corruption: the images as they are, as many as were corrupted."""


def open_clean(work: Work) -> dict[str, LabeledImages]:
    """Open the images of each corrupted task as they were before."""
    size, corrupt = work.options["size"], work.params["corrupt"]
    return {
        task: LabeledImages(
            open_images(paths.images(task, size, "test"))[: corrupt["images"]],
            open_labels(paths.labels(task, size, "test"))[: corrupt["images"]],
        )
        for task in corrupt["tasks"]
    }


def open_corrupted(work: Work, severity: int) -> dict[str, LabeledImages]:
    """Open the images of each task under the corruption that the command names."""
    size, corrupt = work.options["size"], work.params["corrupt"]
    row, found = corrupt["severities"].index(severity), {}
    for task in corrupt["tasks"]:
        images = open_images(paths.corrupted(task, size, work.options["corruption"]), 5)[row]
        labels = open_labels(paths.labels(task, size, "test"))
        found[task] = LabeledImages(images, labels[: len(images)])
    return found
