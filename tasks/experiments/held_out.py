"""A suite's models, and its test images as the held-out protocol cuts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.measuring import Row, measure
from tasks.graph.paths import PROTOCOLS
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.methods import AdaptMethod

_HELD_OUT = PROTOCOLS[1]


@dataclass(frozen=True)
class HeldOut:
    """What adaptations of a stage share that learn on one part and are measured on the other."""

    work: Work
    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    task_vectors: TaskVectors
    seen: Mapping[str, LabeledImages]
    """Per task what may be learned on."""
    measured: Mapping[str, LabeledImages]

    @classmethod
    def open(cls, work: Work) -> Self:
        """Open the models of all tasks and their test images, for the seed of the stage."""
        tasks, model = work.params["tasks"], work.options["model"]
        device = set_up(work.params["compute"])
        test = open_split(tasks, work.options["size"], "test")
        share = work.params["evaluate"]["held_out_fraction"]
        seen, measured = (
            {n: _part(p, rows(len(p.labels), _HELD_OUT, share)) for n, p in test.items()}
            for rows in (adapted_rows, measured_rows)
        )
        return cls(
            work,
            open_encoder(work.params["model"], device),
            open_heads(model, tasks, device),
            open_task_vectors(model, tasks, work.seed).to(device),
            seen,
            measured,
        )

    def prepare(self, method: AdaptMethod) -> Adaptation:
        """Put a method together over the images that may be learned on."""
        compute = self.work.params["compute"]
        return Adaptation.prepare(
            method, self.encoder, self.task_vectors, self.heads, self.seen, compute
        )

    def measure(self, adaptation: Adaptation, parameters: Tensor) -> list[Row]:
        """Measure the model of learned parameters; the encoder is not the adaptation's any more."""
        statistics = open_statistics(
            self.work.options["model"],
            adaptation.method.needs,
            tuple(self.seen),
            self.work.seed,
            adaptation.engine.device,
        )
        merged = adaptation.model(parameters, statistics)
        return measure(self.encoder, merged, self.heads, self.measured)


def _part(part: LabeledImages, rows: slice) -> LabeledImages:
    return LabeledImages(part.images[rows], part.labels[rows])
