"""The one adaptation: a method's coefficients learned on its tasks' images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor, nn

from adamerge_core.adamerging.adapt import AdaptationStep, adapt
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.learned import coefficients_of, merged_by, parameterisation_of
from adamerge_core.adamerging.settings import AdaptationSettings
from adamerge_core.adamerging.targets import targets_for
from adamerge_core.adamerging.turns import Turns
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.shared.methods import change_after, change_before
from tasks.shared.task_vectors import Statistics

if TYPE_CHECKING:
    from tasks.suite.methods import AdaptMethod


@dataclass(frozen=True)
class Adaptation:
    """A method that adapts, ready to learn on some images; the encoder is its own meanwhile."""

    method: "AdaptMethod"
    settings: AdaptationSettings
    engine: Engine
    plain: TaskVectors
    """As they were before the method changed them."""
    images: Mapping[str, np.ndarray]
    """Per task [N, H, W, 3]."""
    targets: Mapping[str, np.ndarray | Tensor] | None
    """Per task what the objective compares predictions with, a row an image."""

    @classmethod
    def prepare(
        cls,
        method: "AdaptMethod",
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        data: Mapping[str, LabeledImages],
        compute: Mapping[str, Any],
    ) -> Self:
        """Put the method's parts together.

        data: the images to learn on; their labels are read for a supervised objective alone.
        compute: the section of params.yaml.
        """
        settings = method.settings
        images = {name: part.images for name, part in data.items()}
        labels = {name: part.labels for name, part in data.items()}
        targets = targets_for(settings.objective, encoder, task_vectors, heads, images, labels)
        engine = Engine(
            encoder,
            change_before(method, task_vectors),
            heads,
            compute["micro_batch"],
            compute["precision"],
            parameterisation=parameterisation_of(settings.granularity, method.mask_options),
        )
        return cls(method, settings, engine, task_vectors, images, targets)

    def steps(
        self,
        seed: int,
        resume_from: Path | None = None,
        rows: Mapping[str, slice] | None = None,
        turns: Turns | None = None,
    ) -> Iterator[AdaptationStep]:
        """Learn on the images, step by step; see adamerge_core.adamerging.adapt.

        rows: per task the images to learn on; None takes all. turns: the tasks of each step.
        """
        images, targets = self.images, self.targets
        if rows:
            images = {name: each[rows[name]] for name, each in images.items()}
            targets = (
                {name: each[rows[name]] for name, each in targets.items()} if targets else None
            )
        return adapt(
            self.engine, images, self.settings, seed, resume_from, targets=targets, turns=turns
        )

    def start(self) -> Tensor:
        """Return the parameters before the first step."""
        settings = self.settings
        return self.engine.parameterisation.start(settings.granularity, settings.start)

    def coefficients(self, parameters: Tensor) -> Tensor:
        """Return the coefficients [K] or [L, K] among what was learned."""
        return coefficients_of(self.engine, parameters)

    def model(self, parameters: Tensor, statistics: Statistics) -> StateDict:
        """Make the method's model of what was learned. statistics: those that it needs."""
        merged = merged_by(self.engine, parameters)
        return change_after(self.method, merged, self.plain, statistics)
