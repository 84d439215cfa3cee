"""The model that a method of an experiment makes of some tasks."""

from collections.abc import Mapping

from torch import Tensor, nn

from adamerge_core.adamerging.turns import Turns
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import Statistics
from tasks.suite.methods import Method, RuleMethod


def merged_model(
    work: Work,
    name: str,
    method: Method,
    encoder: nn.Module,
    task_vectors: TaskVectors,
    heads: Mapping[str, nn.Module],
    data: Mapping[str, LabeledImages],
    statistics: Statistics,
) -> StateDict:
    """Merge the tasks of `task_vectors`; a method that adapts learns on all images of `data`.

    name: see `learned`.
    """
    if isinstance(method, RuleMethod):
        return make_model(method, task_vectors, statistics)
    compute = work.params["compute"]
    adaptation = Adaptation.prepare(method, encoder, task_vectors, heads, data, compute)
    return adaptation.model(learned(work, name, adaptation), statistics)


def learned(
    work: Work,
    name: str,
    adaptation: Adaptation,
    seen: Mapping[str, slice] | None = None,
    turns: Turns | None = None,
) -> Tensor:
    """Adapt to the last step, and return its parameters.

    name: of the method, for its curve, and for the state from which it goes on after a kill. seen:
    per task the images to learn on; None takes all. turns: the tasks of each step; None for all.
    """
    scratch = work.report.scratch
    state = scratch / f"{name}.safetensors" if scratch else None
    for step in adaptation.steps(work.seed, state, seen, turns):
        entropy = sum(step.entropy.values()) / len(step.entropy)
        work.report.metrics({f"{name}/entropy": entropy}, step.step)
        text = f"{name} of {work.name}  entropy {entropy:.3f}"
        work.report.progress(step.step, adaptation.settings.steps, text)
    return step.coefficients
