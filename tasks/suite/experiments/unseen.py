"""The settings of the experiment `unseen`."""

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY, Name, shown
from tasks.suite.sections import Names


class Unseen(Experiment):
    """What merged models reach on tasks that are left out of the merge."""

    key = "experiments.unseen"

    splits: Annotated[dict[Name, Names], Field(min_length=1, max_length=MANY)]
    """By name the tasks that are left out."""
    pairs: bool
    """Whether every two tasks are left out as well, one pair after the other."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """By name; they merge the other tasks."""

    def pairs_of(self, tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Name every two of the tasks; none where no pair is left out."""
        return numbered_pairs(tasks) if self.pairs else {}

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List tasks left out that are none, or twice, and splits that leave fewer than two."""
        faults = []
        if self.pairs and len(tasks) < 4:
            faults.append(f"{self.key}.pairs: leaves fewer than 2 tasks to merge; set false")
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


def numbered_pairs(tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name every two of the tasks by their numbers, from 0: `0_1`."""
    numbered = combinations(enumerate(tasks), 2)
    return {f"{i}_{j}": (one, other) for (i, one), (j, other) in numbered}
