"""The section `registry` of a suite; without PyTorch, which sections of models need, as whatever
opens MLflow's store reads it.
"""

from tasks.suite.fields import Points, Section


class Tolerances(Section):
    """When a merged model takes the place of the champion; in points of held-out accuracy."""

    key = "registry"

    average_tolerance: Points
    """How far its average over the tasks may lie below the champion's."""
    task_tolerance: Points
    """How far its accuracy on a task may lie below the champion's."""
