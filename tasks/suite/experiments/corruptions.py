"""The settings of the experiment `corruptions`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY


class Corruptions(Experiment):
    """What methods reach under every corruption and severity that the suite makes."""

    key = "experiments.corruptions"

    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """By name; they merge the corrupted tasks. The first is what the others are held against."""
