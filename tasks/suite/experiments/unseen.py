"""The settings of the experiment `unseen`."""

from collections.abc import Sequence
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
