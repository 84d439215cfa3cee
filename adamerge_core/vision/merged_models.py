"""What comes of a merge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adamerge_core.checkpoints import StateDict
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.method_choice import MethodChoice
from adamerge_core.vision.task_heads import TaskHead


@dataclass(frozen=True)
class MergedModel:
    """What came of a merge."""

    tensors: StateDict
    """The merged image tower, in open_clip's names below `visual.`, or a classifier's encoder."""
    heads: Mapping[str, TaskHead]
    """By task; of those tasks that a head is known of."""
    method: MethodChoice
    """What merged; where a parameter was chosen, with the value chosen."""
    coefficients: LearnedCoefficients | None
    """None where a rule merged."""
    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Top-1 in percent of `pretrained`, `individual` and `merged`, by task and `average`; empty
    where the images have no labels."""
    choice: tuple[Mapping[str, Any], ...] = ()
    """By value tried: it under its parameter's name, `criterion`, the tasks' means, `average`."""
