"""What benchmarks of whole adaptations read of a suite that has run, and how they show progress."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from adamerge_core.adamerging import AdaptationStep
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.shared.accuracy import accuracy
from tasks.shared.adaptation import Adaptation
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.task_vectors import open_task_vectors
from tasks.suite.methods import AdaptMethod
from tasks.suite.schema import Suite


@dataclass(frozen=True)
class SuiteProblem:
    """One seed under one protocol."""

    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    task_vectors: TaskVectors
    adapted: dict[str, LabeledImages]
    """Per task the images to adapt on; their labels are for a supervised objective alone."""
    measured: dict[str, LabeledImages]
    """Per task the images to measure on."""
    compute: Mapping[str, Any]
    """The suite's section."""

    @classmethod
    def open(cls, suite: Suite, seed: int, protocol: str) -> "SuiteProblem":
        """Open what a suite has made. Raises InputError where it has not run."""
        compute, held_out = suite.compute.model_dump(), suite.evaluate.held_out_fraction
        model, device = suite.model, set_up(compute)
        test = open_split(suite.tasks, suite.size, "test")
        adapted, measured = (
            {n: _part(part, rows(len(part.labels), protocol, held_out)) for n, part in test.items()}
            for rows in (adapted_rows, measured_rows)
        )
        return cls(
            open_encoder(model.model_dump(), device),
            open_heads(model.name, suite.tasks, device),
            open_task_vectors(model.name, suite.tasks, seed).to(device),
            adapted,
            measured,
            compute,
        )

    @property
    def unlabeled(self) -> dict[str, np.ndarray]:
        """Per task the images to adapt on."""
        return {name: part.images for name, part in self.adapted.items()}

    def prepare(self, method: AdaptMethod, **compute: Any) -> Adaptation:
        """Put a method together; compute: values in place of the suite's."""
        return Adaptation.prepare(
            method,
            self.encoder,
            self.task_vectors,
            self.heads,
            self.adapted,
            {**self.compute, **compute},
        )

    def accuracy(self, model: StateDict) -> float:
        """Measure a model: percent on average over the tasks."""
        self.encoder.load_state_dict(model)
        return accuracy(self.encoder, self.heads, self.measured)["average"]


def _part(part: LabeledImages, rows: slice) -> LabeledImages:
    return LabeledImages(part.images[rows], part.labels[rows])


def last_step(
    adaptation: Adaptation, seed: int, label: str, resume_from: Path | None = None
) -> AdaptationStep:
    """Adapt, with progress on stderr, and return the last step."""
    steps = adaptation.steps(seed, resume_from)
    for step in with_progress(steps, label, adaptation.settings.steps):
        last = step
    return last


def with_progress(
    steps: Iterable[AdaptationStep], label: str, count: int
) -> Iterator[AdaptationStep]:
    """Yield the same steps; on stderr say how many of `count` are done, and the seconds left.

    Steps that a resumed adaptation does not take again do not count towards its speed.
    """
    began, first = time.monotonic(), None
    for step in steps:
        first = first or step.step
        left = (time.monotonic() - began) / (step.step - first + 1) * (count - step.step)
        print(f"\r{label}: {step.step}/{count}, {left:.0f} s left ", end="", file=sys.stderr)
        yield step
    print(file=sys.stderr)
