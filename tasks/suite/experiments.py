"""What the experiments of a suite say: a section each below `experiments` in params.yaml.

experiments/NAME.yaml has an experiment's settings as `adamerge experiment run` puts them there.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tasks.suite.fields import MANY, Images, Name, NoSteps, Section, lines_of, shown, written
from tasks.suite.method_entries import MANY_TASKS
from tasks.suite.methods import Method, methods_faults, parse_methods
from tasks.suite.sections import Names

Entries = dict[str, Any]

Scaling = Annotated[float, Field(ge=-10, le=10, strict=True, allow_inf_nan=False)]


Percent = Annotated[int, Field(ge=1, le=100, strict=True)]


class Experiment(Section):
    """The settings of an experiment."""

    @property
    def merging(self) -> dict[str, Method]:
        """Its own methods, by name; none where it has no such setting."""
        entries = getattr(self, "methods", None)
        return parse_methods(entries) if entries else {}

    def faults_of_methods(self) -> list[str]:
        """List what keeps its methods, each well-formed, from this experiment, a line each."""
        return []

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List what does not go with the suite's tasks, a line each."""
        return []


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
        return (*images, *(f"{percent}_percent" for percent in self.percent))

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


class Unseen(Experiment):
    """What merged models reach on tasks that are left out of the merge."""

    key = "experiments.unseen"

    splits: Annotated[dict[Name, Names], Field(min_length=1, max_length=MANY)]
    """By name the tasks that are left out."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """By name; they merge the other tasks."""

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List tasks left out that are none, or twice, and splits that leave fewer than two."""
        faults = []
        for name, left_out in self.splits.items():
            where = f"{self.key}.splits.{name}"
            unknown = [task for task in left_out if task not in tasks]
            faults += [
                f"{where}: {shown(task)} must be one of tasks: {', '.join(tasks)}"
                for task in unknown
            ]
            if len(set(left_out)) != len(left_out):
                faults.append(f"{where} = {shown(left_out)}: each must stand once")
            if not unknown and len(tasks) - len(set(left_out)) < 2:
                faults.append(f"{where}: leaves fewer than 2 tasks to merge; leave out fewer")
        return faults


EXPERIMENTS: dict[str, type[Experiment]] = {
    "sensitivity": Sensitivity,
    "unlabeled": Unlabeled,
    "unseen": Unseen,
}
"""By name, in the order of the report's contents."""


def experiments_of(content: Mapping[str, Any]) -> dict[str, Experiment]:
    """Read the settings of a checked suite's experiments, by name, in the order of EXPERIMENTS."""
    given = content.get("experiments") or {}
    return {n: kind.model_validate(given[n]) for n, kind in EXPERIMENTS.items() if n in given}


def experiment_faults(entries: Any, tasks: Sequence[str] = ()) -> list[str]:
    """List what is wrong with the section `experiments`, a line each.

    tasks: those of the suite; without any, what depends on them is not checked.
    """
    if not isinstance(entries, Mapping):
        return []  # told of by its type
    return [line for name, entry in entries.items() for line in _faults(name, entry, tasks)]


def _faults(name: Any, entry: Any, tasks: Sequence[str]) -> list[str]:
    where = f"experiments.{written(name)}"
    if name not in EXPERIMENTS:
        return [f"{where}: is no experiment; give one of {', '.join(EXPERIMENTS)}"]
    if not isinstance(entry, Mapping):
        return []  # told of by its type
    methods = entry.get("methods", {})
    merged, faults = len(tasks) or MANY_TASKS, []
    if methods:
        faults = methods_faults(methods, f"{where}.methods", merged, may_choose=False)
    try:
        settings = EXPERIMENTS[name].model_validate(entry)
    except ValidationError as error:
        return faults + lines_of(error, f"{where}.")
    if tasks:
        faults += settings.faults_of_tasks(tasks)
    return faults or settings.faults_of_methods()
