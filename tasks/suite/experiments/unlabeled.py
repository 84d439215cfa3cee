"""The settings of the experiment `unlabeled`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, NoSteps
from tasks.suite.methods import Method

Percent = Annotated[float, Field(gt=0, le=100, strict=True)]


class Unlabeled(Experiment):
    """What adaptations reach that see few images, and rules whose statistics are of few."""

    key = "experiments.unlabeled"

    images: Annotated[tuple[NoSteps, ...], Field(max_length=MANY)]
    """Of each task; 0, for adaptations alone, is the merge that they start with."""
    percent: Annotated[tuple[Percent, ...], Field(max_length=MANY)]
    """Of the images that the held-out protocol adapts on."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Adaptations, and rules that need statistics, by name."""
    fisher_probes: Annotated[int, Field(ge=1, le=10**4, strict=True)] | None = None
    """Of rules that need Fisher information; see adamerge_core.statistics.fisher_diagonal."""

    @property
    def amounts(self) -> tuple[str, ...]:
        """The amounts in the order of the page, as stages and tables name them."""
        images = (f"{count}_images" for count in self.images)
        return (*images, *(f"{percent:g}_percent" for percent in self.percent))

    def amounts_of(self, method: Method) -> tuple[str, ...]:
        """Those that a method is measured with: on no image a rule has no statistics."""
        return tuple(each for each in self.amounts if method.adapts or each != "0_images")

    @property
    def reading_statistics(self) -> dict[str, Method]:
        """The adaptations: a rule's statistics are of the images that it is to see."""
        return {name: method for name, method in self.merging.items() if method.adapts}

    def faults_of_methods(self) -> list[str]:
        """List the methods that take nothing from images, and what leaves nothing to compare."""
        faults = []
        for name, method in self.merging.items():
            if not method.adapts and not method.needs:
                faults.append(f"{self.key}.methods.{name}: is a rule that sees no image; remove it")
            elif takes_probes(method) and not self.fisher_probes:
                faults.append(
                    f"{self.key}.fisher_probes: is missing, and methods.{name} needs it; add it, "
                    "for example fisher_probes: 4"
                )
        if len(set(self.amounts)) != len(self.amounts):
            faults.append(f"{self.key}.images, percent: each must stand once")
        if len(self.amounts) < 2:
            faults.append(f"{self.key}.images, percent: must have at least 2 together")
        elif any(len(self.amounts_of(method)) < 2 for method in self.merging.values()):
            faults.append(f"{self.key}.images, percent: must have at least 2 above 0 for a rule")
        return faults


def takes_probes(method: Method) -> bool:
    """Say whether a method is a rule whose Fisher information is collected here."""
    return not method.adapts and "fisher_diagonal" in method.needs
