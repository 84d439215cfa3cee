"""The settings of the experiment `surrogate`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.experiments.tables import ADAPTED, FINETUNED, PRETRAINED, START
from tasks.suite.fields import MANY, shown
from tasks.suite.methods import AdaptMethod

Percent = Annotated[int, Field(ge=1, le=99, strict=True)]


class Surrogate(Experiment):
    """Whether the entropy of predictions stands in for their loss."""

    key = "experiments.surrogate"

    images: Annotated[int, Field(ge=2, le=10**7, strict=True)]
    """The first so many test images of each task; one alone has no order."""
    finetuning: Annotated[tuple[Percent, ...], Field(max_length=MANY)]
    """Of the steps of fine-tuning; before the first and after the last is measured too."""
    adapting: Annotated[tuple[Percent, ...], Field(max_length=MANY)]
    """Of the steps of an adaptation, likewise."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Adaptations, by name."""

    def finetuning_moments(self, trained: bool) -> tuple[str, ...]:
        """List the moments of fine-tuning; trained: whether models are, and none is imported."""
        between = self.finetuning if trained else ()
        return (PRETRAINED, *(f"finetuning_{percent}" for percent in between), FINETUNED)

    @property
    def adapting_moments(self) -> tuple[str, ...]:
        """The moments of an adaptation."""
        return (START, *(f"adapting_{percent}" for percent in self.adapting), ADAPTED)

    def faults_of_methods(self) -> list[str]:
        """List the methods that are no adaptations of a known number of steps alone."""
        faults = [
            f"{self.key}.{key} = {shown(percents)}: each must stand once"
            for key, percents in (("finetuning", self.finetuning), ("adapting", self.adapting))
            if len(set(percents)) != len(percents)
        ]
        for name, method in self.merging.items():
            where = f"{self.key}.methods.{name}"
            if not isinstance(method, AdaptMethod):
                faults.append(f"{where}: is a rule, which takes no steps; remove it")
                continue
            if method.after:
                faults.append(f"{where}.after: is no part of the steps; remove it")
            if method.settings.held_out_share:
                faults.append(
                    f"{where}.held_out_share = {method.settings.held_out_share}: must be 0, for "
                    "early stopping leaves the number of steps open"
                )
        return faults
