"""The picture of what a suite's images look like, as PNG bytes: equal inputs give equal bytes."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.report.figures.canvas import drawing, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# in widths of an image and its gap: rows of images with their classes below, rows without, the
# headings above these, the gap between groups of columns
_ROW, _BARE_ROW, _HEADING, _GAP = 1.32, 1.08, 0.8, 0.3

_WIDTH = 8.9  # inches that the columns of images share
_LINE_LENGTH = 17  # characters of a class name below its image


@dataclass(frozen=True)
class TaskSamples:
    """A few images of one task."""

    task_name: str
    images: np.ndarray
    """[N, H, W, 3] uint8."""
    class_names: Sequence[str]


@dataclass(frozen=True)
class CorruptedSamples:
    """One image of a task, clean and corrupted."""

    task_name: str
    clean: np.ndarray
    """[H, W, 3] uint8."""
    corrupted: np.ndarray
    """[corruptions, severities, H, W, 3] uint8."""


def samples(
    tasks: Sequence[TaskSamples],
    corrupted: Sequence[CorruptedSamples],
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> bytes:
    """Draw images of every task with their classes; below, one image of each corrupted task, clean
    and under each of `corruptions` at each of `severities`.
    """
    columns = max(len(task.images) for task in tasks)
    wide = 1 + len(corruptions) * (len(severities) + _GAP)
    upper_height = len(tasks) * _ROW * _WIDTH / columns
    lower_height = (len(corrupted) * _BARE_ROW + _HEADING) * _WIDTH / wide
    with drawing(10, upper_height + lower_height + 0.9) as (figure, buffer):
        upper, lower = figure.subplots(2, 1, height_ratios=(upper_height, lower_height))
        _blank(upper, "Test images of every task and their classes", columns, _ROW * len(tasks))
        for row, task in enumerate(tasks):
            _task_row(upper, task, _ROW * row)
        title = "One test image of each corrupted task, clean and corrupted (severity 1 to 5)"
        _blank(lower, title, wide, _HEADING + _BARE_ROW * len(corrupted))
        lefts = [1 + _GAP + group * (len(severities) + _GAP) for group in range(len(corruptions))]
        _headings(lower, dict(zip(corruptions, lefts, strict=True)), severities)
        for row, sample in enumerate(corrupted):
            _corrupted_row(lower, sample, lefts, _HEADING + _BARE_ROW * row)
    return buffer.getvalue()


def _task_row(axes: "Axes", task: TaskSamples, top: float) -> None:
    _label(axes, task.task_name, top)
    for column, (image, name) in enumerate(zip(task.images, task.class_names, strict=True)):
        _place(axes, image, column, top)
        text = textwrap.fill(name, _LINE_LENGTH, max_lines=2, placeholder="…")
        axes.text(column + 0.48, top + 0.98, text, ha="center", va="top", fontsize=7)


def _headings(axes: "Axes", lefts: dict[str, float], severities: Sequence[int]) -> None:
    """Above each group of columns, which begins at `lefts`, its corruption and its severities."""
    axes.text(0.48, 0.7, "clean", ha="center", va="bottom", fontsize=8)
    for corruption, left in lefts.items():
        middle, name = left + len(severities) / 2, corruption.replace("_", " ")
        axes.text(middle, 0.38, name, ha="center", va="bottom", fontsize=9)
        for column, severity in enumerate(severities):
            place = left + column + 0.48
            axes.text(place, 0.7, f"{severity}", ha="center", va="bottom", fontsize=8)


def _corrupted_row(
    axes: "Axes", sample: CorruptedSamples, lefts: Sequence[float], top: float
) -> None:
    _label(axes, sample.task_name, top)
    _place(axes, sample.clean, 0, top)
    for left, images in zip(lefts, sample.corrupted, strict=True):
        for column, image in enumerate(images):
            _place(axes, image, left + column, top)


def _blank(axes: "Axes", title: str, width: float, height: float) -> None:
    """Axes for images: no frame, x to the right, y downwards, one unit an image and its gap."""
    axes.set_axis_off()
    axes.set_title(title, loc="left")
    axes.set_xlim(-0.12 * width, width)
    axes.set_ylim(height, 0)


def _place(axes: "Axes", image: np.ndarray, left: float, top: float) -> None:
    edges = (left, left + 0.96, top + 0.96, top)
    axes.imshow(image, extent=edges, interpolation="none", aspect="auto")


def _label(axes: "Axes", name: str, top: float) -> None:
    axes.text(
        -0.1, top + 0.48, short_name(name), ha="right", va="center", fontsize=9, fontweight="bold"
    )
