"""The settings of the experiment `sensitivity`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, Images, shown, written
from tasks.suite.method_entries import MANY_TASKS
from tasks.suite.methods import Method

Scaling = Annotated[float, Field(ge=-10, le=10, strict=True, allow_inf_nan=False)]


class Sensitivity(Experiment):
    """What rules reach over their scaling."""

    key = "experiments.sensitivity"

    scalings: Annotated[tuple[Scaling, ...], Field(min_length=2, max_length=MANY)]
    images: Images
    """The first so many test images of each task."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Rules, by name; `scaling` is each of the scalings in turn."""
    beyond: Annotated[
        dict[str, Annotated[tuple[Scaling, ...], Field(min_length=1, max_length=MANY)]],
        Field(default_factory=dict, max_length=MANY),
    ]
    """More scalings, by method: where a rule says that its scaling may be larger."""

    def scalings_of(self, name: str) -> tuple[float, ...]:
        """List the scalings of a method."""
        return (*self.scalings, *self.beyond.get(name, ()))

    def faults_of_methods(self) -> list[str]:
        """List the methods without a scaling, and scalings that a method does not take."""
        known = self.merging
        faults = [
            f"{self.key}.beyond.{written(name)}: is none of methods; give one of "
            f"{', '.join(map(written, known))}, or remove it"
            for name in self.beyond
            if name not in known
        ]
        if len(set(self.scalings)) != len(self.scalings):
            faults.append(f"{self.key}.scalings = {shown(self.scalings)}: each must stand once")
        for name, method in known.items():
            if method.adapts or "scaling" not in method.known:
                faults.append(f"{self.key}.methods.{name}: is no rule with a scaling; remove it")
            else:
                faults += self._faults_of_scalings(name, method)
        return faults

    def _faults_of_scalings(self, name: str, method: Method) -> list[str]:
        own = self.beyond.get(name, ())
        faults = [
            f"{self.key}.methods.{name}.{line}"
            for scaling in self.scalings_of(name)
            for line in method.varied(scaling=scaling).faults(MANY_TASKS)
        ]
        if len({*self.scalings, *own}) != len({*self.scalings}) + len(own):
            faults.append(
                f"{self.key}.beyond.{name} = {shown(list(own))}: each must stand once, and not in "
                "scalings"
            )
        return faults
