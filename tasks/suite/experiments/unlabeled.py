"""The settings of the experiment `unlabeled`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, NoSteps

Percent = Annotated[float, Field(gt=0, le=100, strict=True)]


class Unlabeled(Experiment):
    """What adaptations reach that see few images."""

    key = "experiments.unlabeled"

    images: Annotated[tuple[NoSteps, ...], Field(max_length=MANY)]
    """Of each task; 0 for the merge that an adaptation starts with."""
    percent: Annotated[tuple[Percent, ...], Field(max_length=MANY)]
    """Of the images that the held-out protocol adapts on."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Adaptations, by name."""

    @property
    def amounts(self) -> tuple[str, ...]:
        """The amounts in the order of the page, as stages and tables name them."""
        images = (f"{count}_images" for count in self.images)
        return (*images, *(f"{percent:g}_percent" for percent in self.percent))

    def faults_of_methods(self) -> list[str]:
        """List the methods that learn nothing from images, and what leaves nothing to compare."""
        faults = [
            f"{self.key}.methods.{name}: is a rule, which learns from no image; remove it"
            for name, method in self.merging.items()
            if not method.adapts
        ]
        if len(set(self.amounts)) != len(self.amounts):
            faults.append(f"{self.key}.images, percent: each must stand once")
        if len(self.amounts) < 2:
            faults.append(f"{self.key}.images, percent: must have at least 2 together")
        return faults
