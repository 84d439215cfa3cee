"""Eight miniature image-classification tasks of 64 x 64 pixels, made from installed wheels.

They stand beside the paper's eight data sets at a size that two CPU cores merge in minutes. Six
are drawn; `photos` and `mnist` are real images. Sources and licences: docs/data_licences.md.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS


class _Task(NamedTuple):
    """Where a task lives: its module, and the prefix of its names there."""

    module: str
    names: str = "CLASS_NAMES"
    templates: str = "TEMPLATES"
    draw: str = "draw"


_TASKS = {
    "photos": _Task("photos"),
    "vehicles": _Task("vehicles"),
    "letters": _Task("glyphs", "LETTER_NAMES", "LETTER_TEMPLATES", "draw_letter"),
    "landuse": _Task("landuse"),
    "housenum": _Task("glyphs", "NUMBER_NAMES", "NUMBER_TEMPLATES", "draw_number"),
    "signs": _Task("signs"),
    "mnist": _Task("mnist"),
    "patterns": _Task("patterns"),
}
TASK_NAMES: tuple[str, ...] = tuple(_TASKS)


def class_names(task_name: str) -> tuple[str, ...]:
    """Names of the task's classes, in the order of the labels, as words for a prompt.

    Raises InputError if the task is unknown.
    """
    _check(_task_faults(task_name))
    names: tuple[str, ...] = getattr(_module(task_name), _TASKS[task_name].names)
    return names


def templates(task_name: str) -> tuple[str, ...]:
    """Prompt templates of the task; "{}" stands for a class name.

    Raises InputError if the task is unknown.
    """
    _check(_task_faults(task_name))
    found: tuple[str, ...] = getattr(_module(task_name), _TASKS[task_name].templates)
    return found


def module_name(task_name: str) -> str:
    """Name the module that makes a task's images. Raises InputError if the task is unknown."""
    _check(_task_faults(task_name))
    return f"adamerge_core.vision.miniature.{_TASKS[task_name].module}"


def supply(task_name: str) -> Mapping[str, int]:
    """Count by split the images that exist of a task; empty where as many as wanted are drawn.

    Raises InputError if the task is unknown.
    """
    _check(_task_faults(task_name))
    return getattr(_module(task_name), "SUPPLY", {})


def images(
    task_name: str, split: str, count: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """`count` images of a split of a task, each (uint8 [64, 64, 3] RGB, label).

    Labels go round robin. Image i depends on (seed, task, split, i) alone, so a longer request
    begins with a shorter one. No two splits share an image, a cell of a photograph or a digit,
    whatever the seeds.

    Raises InputError, before any image is made, if the task or split is unknown, if count or seed
    is not an integer >= 0, or if count exceeds the digits that exist (`mnist`).
    """
    faults = _task_faults(task_name)
    if split not in SPLITS:
        faults.append(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    for name, value in (("count", count), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            faults.append(f"{name} is {value!r}; it must be an integer >= 0")
    _check(faults)
    there = supply(task_name).get(split)
    if there is not None and count > there:
        raise InputError(
            f"count is {count}; the {split} split of {task_name} holds {there} images, ask for at "
            "most that many"
        )
    return _generate(task_name, split, int(count), int(seed))


def _generate(
    task_name: str, split: str, count: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    module, task = _module(task_name), _TASKS[task_name]
    classes = len(getattr(module, task.names))
    key = (seed, TASK_NAMES.index(task_name), SPLITS.index(split))
    for index in range(count):
        label = index % classes
        if task_name == "mnist":
            yield module.digit(split, index, seed), label
            continue
        rng = np.random.default_rng(np.random.SeedSequence((*key, index)))
        if task_name == "photos":
            yield module.draw(rng, label, split), label
        else:
            yield getattr(module, task.draw)(rng, label), label


def _module(task_name: str) -> ModuleType:
    """Imported on first use, so that the table of tasks stays cheap to import."""
    return import_module(module_name(task_name))


def _task_faults(task_name: str) -> list[str]:
    if task_name in TASK_NAMES:
        return []
    return [f"task_name is {task_name!r}; it must be one of {', '.join(TASK_NAMES)}"]


def _check(faults: list[str]) -> None:
    if faults:
        raise InputError.listing("miniature", faults)
