"""The settings of the experiment `corruptions`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY
from tasks.suite.sections import Severity


class Corruptions(Experiment):
    """What methods reach under every corruption, at every severity or some of those made."""

    key = "experiments.corruptions"

    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """By name; they merge the corrupted tasks. The first is what the others are held against."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1, max_length=MANY)] | None = None
    """Of those that the suite makes; None for all."""

    def measured(self, made: tuple[int, ...]) -> tuple[int, ...]:
        """List the severities at which it measures, of those that a suite makes."""
        return self.severities or made
