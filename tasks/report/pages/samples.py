"""What the images look like."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.graph import paths
from tasks.report.content import Content, Figure, Line, Table
from tasks.report.escapes import isolated, plain
from tasks.report.figures.samples import CorruptedSamples, TaskSamples, samples

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Images"
QUESTION = "How different are the tasks, and how much of an image does a corruption leave?"
FIGURES: tuple[str, ...] = ("samples",)
FILES: tuple[str, ...] = ()

_IMAGES_PER_TASK = 8
_CORRUPTIONS = 3


def reads(suite: "Suite") -> list[Path]:
    """List the test images, their labels and class names, and the corrupted images shown."""
    files = [
        path
        for task in suite.tasks
        for path in (
            paths.images(task, suite.size, "test"),
            paths.labels(task, suite.size, "test"),
            paths.classes(task),
        )
    ]
    return files + [
        paths.corrupted(task, suite.size, corruption)
        for task in suite.corrupt.tasks
        for corruption in _corruptions(suite)
    ]


def show(suite: "Suite", root: Path) -> Content:
    """Draw a few images; files are mapped, so that only their pages are read."""
    shown, made = _corruptions(suite), suite.corrupt.severities
    severities = sorted({0, len(made) // 2, len(made) - 1})
    corrupted = []
    for task in suite.corrupt.tasks:
        clean = np.load(root / paths.images(task, suite.size, "test"), mmap_mode="r")[0]
        stacks = [
            np.load(root / paths.corrupted(task, suite.size, name), mmap_mode="r") for name in shown
        ]
        images = np.array([[stack[severity, 0] for severity in severities] for stack in stacks])
        corrupted.append(CorruptedSamples(task, clean, images))
    tasks = [_task(suite, root, task) for task in suite.tasks]
    return Content(
        tables=[
            Table(
                name="classes",
                title="Classes of the images shown",
                text="From left to right.",
                headings=("task", "classes"),
                columns=(),
                lines=[
                    Line((each.task_name, ", ".join(map(isolated, each.class_names))))
                    for each in tasks
                ],
            )
        ],
        figures=[
            Figure(
                name="samples",
                title="What the images look like",
                text="Look at how different the tasks are, and at how much of an image a "
                "corruption leaves.",
                alt=f"Test images of {', '.join(suite.tasks)} with their classes; one image of "
                f"{', '.join(suite.corrupt.tasks)} clean and corrupted by "
                f"{', '.join(name.replace('_', ' ') for name in shown)}.",
                png=samples(tasks, corrupted, shown, [made[index] for index in severities]),
            )
        ],
    )


def _task(suite: "Suite", root: Path, task: str) -> TaskSamples:
    """The first test image of classes spread over all of the task's."""
    labels = np.load(root / paths.labels(task, suite.size, "test"))
    classes = json.loads((root / paths.classes(task)).read_text(encoding="utf-8"))["classes"]
    present, first = np.unique(labels, return_index=True)
    count = min(_IMAGES_PER_TASK, len(present))
    spread = np.linspace(0, len(present) - 1, count).round().astype(int)
    images = np.load(root / paths.images(task, suite.size, "test"), mmap_mode="r")
    return TaskSamples(
        task,
        np.array(images[first[spread]]),
        [plain(classes[present[index]]) for index in spread],
    )


def _corruptions(suite: "Suite") -> list[str]:
    """Those that were evaluated first, then the others, up to a few."""
    made = suite.corrupt.corruptions
    evaluated = [name for name in suite.robustness.corruptions if name in made]
    return list(dict.fromkeys([*evaluated, *made]))[:_CORRUPTIONS]
