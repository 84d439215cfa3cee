"""What benchmarks of whole adaptations read of a suite that has run, and how they show progress."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adamerge_core.adamerging import AdaptationStep, Engine
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.graph.paths import Files
from tasks.shared.encoders import accuracy, open_encoder, open_heads, open_split
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.task_vectors import open_task_vectors
from tasks.suite.schema import Evaluate, Suite


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

    @classmethod
    def open(cls, suite: Suite, seed: int, protocol: str) -> "SuiteProblem":
        """Raises InputError where the suite has not run."""
        files, names = Files(suite.name), suite.task_names
        test = open_split(files, names, "test")
        adapted, measured = (
            {name: _part(part, rows, protocol, suite) for name, part in test.items()}
            for rows in (adapted_rows, measured_rows)
        )
        return cls(
            open_encoder(suite),
            open_heads(suite, names),
            open_task_vectors(files, names, seed).to(suite.compute.device),
            adapted,
            measured,
        )

    @property
    def unlabeled(self) -> dict[str, np.ndarray]:
        """Per task the images to adapt on."""
        return {name: part.images for name, part in self.adapted.items()}

    def accuracy(self, engine: Engine, coefficients: torch.Tensor) -> float:
        """Percent on average over the tasks, of the model of these coefficients."""
        engine.merge(coefficients)
        return accuracy(self.encoder, self.heads, self.measured)["average"]


def _part(
    part: LabeledImages, rows: Callable[[int, str, Evaluate], slice], protocol: str, suite: Suite
) -> LabeledImages:
    chosen = rows(len(part.labels), protocol, suite.evaluate)
    return LabeledImages(part.images[chosen], part.labels[chosen])


def with_progress(
    steps: Iterable[AdaptationStep], label: str, count: int
) -> Iterator[AdaptationStep]:
    """The same steps; on stderr how many of `count` are done, and the seconds left.

    Steps that a resumed adaptation does not take again do not count towards its speed.
    """
    began, first = time.monotonic(), None
    for step in steps:
        first = first or step.step
        left = (time.monotonic() - began) / (step.step - first + 1) * (count - step.step)
        print(f"\r{label}: {step.step}/{count}, {left:.0f} s left ", end="", file=sys.stderr)
        yield step
    print(file=sys.stderr)
