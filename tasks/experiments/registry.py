"""The experiments that a suite may have beside its tables."""

from typing import TYPE_CHECKING, Protocol

from tasks.experiments import (
    corruptions,
    cost,
    deployment,
    labels,
    number_of_tasks,
    sensitivity,
    surrogate,
    unlabeled,
    unseen,
)
from tasks.graph.dvc_yaml import Stage

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


class Runs(Protocol):
    """A module of this room."""

    def stages(self, suite: "Suite") -> list[Stage]:
        """Make the templates of the experiment's stages, as the suite's settings of it say."""


RUNS: dict[str, Runs] = {
    "sensitivity": sensitivity,
    "unlabeled": unlabeled,
    "unseen": unseen,
    "corruptions": corruptions,
    "surrogate": surrogate,
    "labels": labels,
    "cost": cost,
    "number_of_tasks": number_of_tasks,
    "deployment": deployment,
}
"""By name, as tasks.suite.experiments has their settings."""


def stages(suite: "Suite") -> list[Stage]:
    """Make the templates of all experiments that a suite has."""
    return [stage for name in suite.studied for stage in RUNS[name].stages(suite)]
