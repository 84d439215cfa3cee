"""The settings of the experiment `number_of_tasks`."""

import math
import random
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, Images, Seed, shown

Count = Annotated[int, Field(ge=2, le=MANY, strict=True)]
Subsets = Annotated[int, Field(ge=1, le=MANY, strict=True)]


class NumberOfTasks(Experiment):
    """What merged models keep as more tasks are merged."""

    key = "experiments.number_of_tasks"

    counts: Annotated[tuple[Count, ...], Field(min_length=2, max_length=MANY)]
    """How many tasks are merged."""
    subsets: Subsets
    """Of each count, as far as there are so many."""
    seed: Seed
    """Of the subsets drawn."""
    images: Images
    """The first so many test images of each task, to adapt and to measure on."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]

    def drawn(self, tasks: Sequence[str]) -> dict[int, dict[str, tuple[str, ...]]]:
        """Draw the subsets of the suite's tasks, by count and name."""
        return {
            count: subsets_of(tasks, count, self.subsets, self.seed)
            for count in sorted(self.counts)
        }

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List counts that are twice, or more than there are tasks."""
        faults = [
            f"{self.key}.counts: {count} is more than the {len(tasks)} tasks; give at most so many"
            for count in self.counts
            if count > len(tasks)
        ]
        if len(set(self.counts)) != len(self.counts):
            faults.append(f"{self.key}.counts = {shown(self.counts)}: each must stand once")
        return faults


def subsets_of(
    tasks: Sequence[str], count: int, subsets: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Draw different subsets of `count` tasks, as many as wanted or as there are, by name.

    It depends on nothing but the arguments; tasks of a subset are in the order of `tasks`.
    """
    generator = random.Random(f"{seed} {count}")
    found: dict[tuple[str, ...], None] = {}
    while len(found) < min(subsets, math.comb(len(tasks), count)):
        chosen = set(generator.sample(range(len(tasks)), count))
        found[tuple(task for place, task in enumerate(tasks) if place in chosen)] = None
    return {f"{count}_tasks_{number}": subset for number, subset in enumerate(found, start=1)}
