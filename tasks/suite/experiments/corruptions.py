"""The settings of the experiment `corruptions`."""

from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.fields import MANY
from tasks.suite.sections import Severity

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


class Corruptions(Experiment):
    """What methods reach under every corruption, at every severity or some of those made."""

    key = "experiments.corruptions"

    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """By name; they merge the corrupted tasks. The first is what the others are held against."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1, max_length=MANY)] | None = None
    """Of those that the suite makes; None for all."""


def severities_of(suite: "Suite") -> tuple[int, ...]:
    """List the severities at which a suite with this experiment is measured."""
    settings = cast("Corruptions", suite.studied["corruptions"])
    return settings.severities or suite.corrupt.severities
