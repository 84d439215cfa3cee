"""The settings of the experiment `sensitivity`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, Images, shown
from tasks.suite.method_entries import MANY_TASKS

Scaling = Annotated[float, Field(ge=-10, le=10, strict=True, allow_inf_nan=False)]


class Sensitivity(Experiment):
    """What rules reach over their scaling."""

    key = "experiments.sensitivity"

    scalings: Annotated[tuple[Scaling, ...], Field(min_length=2, max_length=MANY)]
    images: Images
    """The first so many test images of each task."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Rules, by name; `scaling` is each of the scalings in turn."""

    def faults_of_methods(self) -> list[str]:
        """List the methods without a scaling, and scalings that a method does not take."""
        faults = []
        if len(set(self.scalings)) != len(self.scalings):
            faults.append(f"{self.key}.scalings = {shown(self.scalings)}: each must stand once")
        for name, method in self.merging.items():
            if method.adapts or "scaling" not in method.known:
                faults.append(f"{self.key}.methods.{name}: is no rule with a scaling; remove it")
                continue
            for scaling in self.scalings:
                lines = method.varied(scaling=scaling).faults(MANY_TASKS)
                faults += [f"{self.key}.methods.{name}.{line}" for line in lines]
        return faults
