"""Choosing the value of a method's parameter by a criterion on images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from adamerge_core.adamerging.targets import expert_targets
from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.evaluation import with_average
from adamerge_core.merging.registry import CRITERIA, Entry
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from adamerge_core.widening import widened

_BATCH = 64


class Made(Protocol):
    """What a method made."""

    @property
    def model(self) -> StateDict: ...


AnyMade = TypeVar("AnyMade", bound=Made)


@dataclass(frozen=True)
class Judge:
    """A criterion, and the images that it is measured on."""

    criterion: Entry
    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    data: Mapping[str, LabeledImages]
    targets: Mapping[str, Tensor] | None
    """Per task labels [N], or the experts' class probabilities [N, classes]."""

    @classmethod
    def prepare(
        cls,
        criterion: str,
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        data: Mapping[str, LabeledImages],
    ) -> Self:
        """Make ready what the criterion takes. data: validation images, whose labels are read only
        where the criterion needs labels.
        """
        entry, targets = CRITERIA[criterion], None
        if entry.needs == "labels":
            targets = {name: take(part.labels, slice(None)) for name, part in data.items()}
        elif entry.needs == "experts":
            images = {name: part.images for name, part in data.items()}
            targets = expert_targets(encoder, task_vectors, heads, images, _BATCH)
        return cls(entry, encoder, heads, data, targets)

    def measure(self, model: StateDict) -> dict[str, float]:
        """Return the criterion's mean over the images of each task, and `average` over tasks."""
        self.encoder.load_state_dict(model)
        return self.score(all_logits(self.encoder, self.heads, self.data))

    def score(self, logits: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the same, of a model's logits [N, classes] on the images of each task."""
        values = {name: self.criterion(each, self._targets(name)) for name, each in logits.items()}
        return with_average({name: float(each.double().mean()) for name, each in values.items()})

    def _targets(self, name: str) -> Tensor | None:
        return self.targets[name] if self.targets else None

    def prefers(self, value: float, other: float) -> bool:
        """Tell whether a value is better than another."""
        return value > other if self.criterion.better == "higher" else value < other


@torch.inference_mode()
def all_logits(
    encoder: nn.Module, heads: Mapping[str, nn.Module], data: Mapping[str, LabeledImages]
) -> dict[str, Tensor]:
    """Return the logits of each task's images [N, classes], float32 or wider, on the CPU."""
    encoder.eval()
    device = next(encoder.parameters()).device
    logits = {}
    for name, part in data.items():
        starts = range(0, len(part.images), _BATCH)
        batches = (take(part.images, slice(start, start + _BATCH)).to(device) for start in starts)
        logits[name] = torch.cat([widened(heads[name](encoder(each))).cpu() for each in batches])
    return logits


@dataclass(frozen=True)
class Choice(Generic[AnyMade]):
    """What was chosen, and what the criterion gave for each value tried."""

    best: AnyMade
    rows: list[dict[str, Any]]
    """The parameter's value under its name, criterion, one column a task, average."""


def choose(
    parameter: str,
    values: Sequence[Any],
    judge: Judge,
    make: Callable[[int, Any], AnyMade],
    tell: Callable[[int, Any, float], None],
) -> Choice[AnyMade]:
    """Try every value of a parameter, and keep what gives the best average, the first of equals.

    make: (number from 1, value) -> what the method makes with it. tell: is told the number, the
    value and the criterion's average after each.
    """
    rows: list[dict[str, Any]] = []
    best: AnyMade | None = None
    best_average = 0.0
    for number, value in enumerate(values, start=1):
        made = make(number, value)
        measured = judge.measure(made.model)
        average = measured["average"]
        rows.append({parameter: value, "criterion": judge.criterion.name} | measured)
        if best is None or judge.prefers(average, best_average):
            best, best_average = made, average
        tell(number, value, average)
    assert best is not None
    return Choice(best, rows)
