"""What the settings of all experiments have in common."""

from collections.abc import Sequence
from typing import Any

from tasks.suite.fields import Section
from tasks.suite.methods import Method, parse_methods

Entries = dict[str, Any]


class Experiment(Section):
    """The settings of an experiment."""

    @property
    def merging(self) -> dict[str, Method]:
        """Its own methods, by name; none where it has no such setting."""
        entries = getattr(self, "methods", None)
        return parse_methods(entries) if entries else {}

    @property
    def reading_statistics(self) -> dict[str, Method]:
        """Those of its methods that take the suite's statistics, where they need any."""
        return self.merging

    def faults_of_methods(self) -> list[str]:
        """List what keeps its methods, each well-formed, from this experiment, a line each."""
        return []

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List what does not go with the suite's tasks, a line each."""
        return []
