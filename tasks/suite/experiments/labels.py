"""The settings of the experiment `labels`."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.experiments.tables import ENTROPY_OBJECTIVE
from tasks.suite.fields import MANY
from tasks.suite.methods import AdaptMethod


class Labels(Experiment):
    """What labels would add to adaptations."""

    key = "experiments.labels"

    methods: Annotated[Entries, Field(min_length=2, max_length=MANY)]
    """Adaptations, by name: to each that minimises entropy others, alike but for the objective."""

    @property
    def adaptations(self) -> dict[str, AdaptMethod]:
        """Its methods, by name."""
        return {n: each for n, each in self.merging.items() if isinstance(each, AdaptMethod)}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """By each method that minimises entropy the others like it, in their order."""
        methods = self.adaptations
        return {
            name: tuple(n for n, other in methods.items() if n != name and _alike(each, other))
            for name, each in methods.items()
            if each.settings.objective == ENTROPY_OBJECTIVE
        }

    def faults_of_methods(self) -> list[str]:
        """List the methods that are no adaptations, and those with nothing to be held against."""
        faults = [
            f"{self.key}.methods.{name}: is a rule, which has no objective; remove it"
            for name, method in self.merging.items()
            if not method.adapts
        ]
        compared = {n for first, others in self.groups.items() if others for n in (first, *others)}
        faults += [
            f"{self.key}.methods.{name}: no other method differs from it in its objective alone, "
            "one of the two entropy; give one, or remove it"
            for name in self.adaptations
            if name not in compared
        ]
        return faults


def _alike(one: AdaptMethod, other: AdaptMethod) -> bool:
    """Tell whether two methods differ in their objective, and in nothing else."""
    first, second = one.settings, other.settings
    same = replace(second, objective=first.objective) == first and (
        one.before,
        one.after,
        one.mask_options,
    ) == (other.before, other.after, other.mask_options)
    return same and first.objective != second.objective
