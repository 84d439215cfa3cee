"""Predictions of a merged model: one image encoder, and a frozen head for each task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.checkpoints import all_finite
from adamerge_core.entropy import softmax_entropy
from adamerge_core.errors import InputError, collected
from adamerge_core.vision.given_images import image_pixels
from adamerge_core.vision.names import printable

_BATCH = 64
"""Of adamerge_core.evaluation, so that logits are those of an evaluation to the last bit."""

_SHOWN = 30


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image."""

    label: int
    """Of the likeliest class, counted from 0."""
    class_name: str
    probabilities: tuple[float, ...]
    """Softmax over the classes of the task, in their order."""
    entropy: float
    """Of the probabilities, in nats: 0 where the model is certain, log(classes) where it knows
    nothing.
    """

    @property
    def probability(self) -> float:
        """Of the likeliest class."""
        return self.probabilities[self.label]


class MultiTaskModel(nn.Module):
    """An image encoder with a head, and the names of its classes, for each task."""

    def __init__(
        self,
        encoder: nn.Module,
        heads: Mapping[str, nn.Module],
        classes: Mapping[str, Sequence[str]],
        image_size: int,
    ) -> None:
        """encoder: uint8 [N, image_size, image_size, 3] -> features [N, D]; heads: by task,
        features [N, D] -> logits [N, classes], with a `weight` [classes, D]; classes: by task,
        their names in the order of the labels. Raises InputError listing what does not fit.
        """
        super().__init__()
        faults = [] if heads else ["has no head; give one for each task"]
        for task in sorted(heads.keys() | classes.keys()):
            rows = len(heads[task].weight) if task in heads else None  # type: ignore[arg-type]
            named = len(classes[task]) if task in classes else None
            if rows != named:
                faults.append(f"{task}: a head of {rows} classes, and {named} class names")
        if faults:
            raise InputError.listing("model", faults)
        self.encoder, self.image_size = encoder, image_size
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())  # a ModuleDict takes not every name
        self.classes = {task: tuple(classes[task]) for task in heads}
        self.eval()

    def forward(self, images: Tensor, task: str) -> Tensor:
        """Classify images uint8 [N, image_size, image_size, 3]: logits [N, classes] of the task."""
        logits: Tensor = self.heads[self.tasks.index(task)](self.encoder(images))
        return logits

    def task_fault(self, task: Any) -> str | None:
        """Say what is wrong with a task that a caller names; None where nothing is."""
        if task in self.tasks:
            return None
        given = "no task is given" if task is None else f"task {printable(str(task))[:60]!r}"
        return f"{given}: must be one of {', '.join(self.tasks)}"


def predict(
    model: MultiTaskModel, images: Sequence[Any], tasks: Sequence[Any], *, paths: bool = True
) -> list[Prediction]:
    """Predict each image's class among those of its task.

    images: each in a form that image_pixels takes; tasks: one for each image; None is that of a
    model with one task. paths: whether an image may be a path. A batch of decoded images is in
    memory at a time. Raises InputError listing the faults of all images.
    """
    faults: list[str] = []
    if len(images) != len(tasks):
        raise InputError(f"{len(images)} images and {len(tasks)} tasks: must be as many")
    if unhashable := [task for task in tasks if not isinstance(task, str | None)]:
        raise InputError(f"task {unhashable[0]!r}: must be text, the name of a task")
    if len(model.tasks) == 1:
        tasks = [model.tasks[0] if task is None else task for task in tasks]
    found: dict[int, Prediction] = {}
    for task in dict.fromkeys(tasks):
        rows = [row for row, each in enumerate(tasks) if each == task]
        fault = model.task_fault(task)
        faults += [f"{_shown(row, images[row])}: {fault}" for row in rows if fault]
        for part in (rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)):
            decoded = []
            for row in part:
                with collected(faults, _shown(row, images[row])):
                    decoded.append(image_pixels(images[row], model.image_size, paths=paths))
            if not faults:
                found |= zip(part, _of_batch(model, np.stack(decoded), task), strict=True)
    if faults:
        raise InputError.listing("images to classify", faults, _SHOWN)
    return [found[row] for row in range(len(images))]


def _shown(row: int, image: Any) -> str:
    """Name an image in a message: its number from 1, and its path if that is what it is."""
    is_name = isinstance(image, str) and len(image) <= 255
    name = f" ({printable(str(image))})" if is_name or hasattr(image, "__fspath__") else ""
    return f"image {row + 1}{name}"


@torch.inference_mode()
def _of_batch(model: MultiTaskModel, pixels: np.ndarray, task: str) -> Iterator[Prediction]:
    device = next(model.parameters()).device
    logits = model(torch.from_numpy(pixels).to(device), task)
    if not all_finite(logits):
        raise InputError(
            f"{task}: the logits are not finite, so no class is the likeliest; look for weights "
            "that are not"
        )
    labels = logits.argmax(dim=-1).tolist()
    exact = logits.double()
    rows = zip(labels, exact.softmax(dim=-1).tolist(), softmax_entropy(exact).tolist(), strict=True)
    names = model.classes[task]
    return (
        Prediction(label, names[label], tuple(probabilities), entropy)
        for label, probabilities, entropy in rows
    )
