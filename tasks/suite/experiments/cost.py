"""The settings of the experiment `cost`."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Experiment


class Cost(Experiment):
    """What the suite's methods cost."""

    key = "experiments.cost"

    timed_steps: Annotated[int, Field(ge=1, le=10**4, strict=True)]
    """Of an adaptation, after one to warm up; their median stands for all its steps."""
