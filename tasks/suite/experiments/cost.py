"""The settings of the experiment `cost`, and the metrics that its tables have."""

from typing import Annotated

from pydantic import Field

from tasks.suite.experiments.experiment import Experiment

PARAMETERS, SECONDS, MEMORY = "parameters", "seconds", "peak_gib"
FORWARD, BACKWARD, OPERATIONS = "forward_images", "backward_images", "operations"
"""Learned numbers beside the merged weights; seconds; GiB of memory at the most; images whose
forward and whose backward pass through the encoder was computed; floating-point operations of
these."""


class Cost(Experiment):
    """What the suite's methods cost."""

    key = "experiments.cost"

    timed_steps: Annotated[int, Field(ge=1, le=10**4, strict=True)]
    """Of an adaptation, after one to warm up; their median stands for all its steps."""
