"""What making a model costs: seconds, and images through the encoder."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Judge
from adamerge_core.vision.images import LabeledImages
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import Statistics
from tasks.suite.methods import AdaptMethod, Method, RuleMethod

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spent:
    """What was spent on a model."""

    seconds: float
    forward: int = 0
    """Images whose forward pass through the encoder was computed."""
    backward: int = 0
    parameters: int = 0
    """Learned numbers, none of which is a weight of the model."""

    def with_more(self, other: "Spent") -> "Spent":
        """Add what another part of the same method spent; it learns the same parameters."""
        return Spent(
            self.seconds + other.seconds,
            self.forward + other.forward,
            self.backward + other.backward,
            max(self.parameters, other.parameters),
        )


@dataclass(frozen=True)
class Spending:
    """Models and images that methods of a stage take, opened before anything is timed."""

    work: Work
    device: torch.device
    task_vectors: TaskVectors
    statistics: Statistics
    encoder: nn.Module | None
    """None where the method runs none."""
    heads: Mapping[str, nn.Module]
    test: Mapping[str, LabeledImages]
    """What adaptations learn on."""
    validation: Mapping[str, LabeledImages]
    """What values of parameters are chosen by."""
    timed_steps: int

    def of(self, method: Method) -> Spent:
        """Make the method's model, and say what that takes; with `choose` of all values tried."""
        if not method.choose:
            return self._of_one(method)[0]
        spent, model = Spent(0.0), None
        for number, value in enumerate(method.choose.values, start=1):
            one, model = self._of_one(method.with_value(value))
            spent = spent.with_more(one)
            self.work.report.progress(number, len(method.choose.values), self.work.name)
        return spent.with_more(self._of_choosing(method, model or {}))

    def _of_one(self, method: Method) -> tuple[Spent, StateDict]:
        if isinstance(method, AdaptMethod):
            return self._of_adapting(method)
        seconds, model = self._timed(lambda: _merged(method, self.task_vectors, self.statistics))
        return Spent(seconds), model

    def _of_adapting(self, method: AdaptMethod) -> tuple[Spent, StateDict]:
        """Take a few steps, whose median stands for all; what is before and after is added."""
        settings, encoder = method.settings, self._encoder()
        before, adaptation = self._timed(
            lambda: Adaptation.prepare(
                method,
                encoder,
                self.task_vectors,
                self.heads,
                self.test,
                self.work.params["compute"],
            )
        )
        steps, taken = adaptation.steps(self.work.seed), []
        count = min(1 + self.timed_steps, settings.steps)
        for number in range(1, count + 1):
            seconds, step = self._timed(lambda: next(steps))
            taken.append(seconds)
            self.work.report.progress(number, count, f"{self.work.name}  {seconds:.3f} s")
        after, model = self._timed(lambda: adaptation.model(step.coefficients, self.statistics))
        seconds = before + statistics.median(taken[1:] or taken) * settings.steps + after
        seen = settings.steps * settings.images_per_task * settings.batches_per_step
        images = len(self.test) * seen
        experts = OBJECTIVES[settings.objective].needs == "experts"
        forward = images + (_count(self.test) if experts else 0)
        return Spent(seconds, forward, images, adaptation.start().numel()), model

    def _of_choosing(self, method: Method, model: StateDict) -> Spent:
        """Measure one model by the criterion; each of the values tried takes as long."""
        assert method.choose is not None
        by, values, encoder = method.choose.by, len(method.choose.values), self._encoder()
        before, judge = self._timed(
            lambda: Judge.prepare(by, encoder, self.task_vectors, self.heads, self.validation)
        )
        each, _ = self._timed(lambda: judge.measure(model))
        experts = judge.criterion.needs == "experts"
        passes = (values + 1 if experts else values) * _count(self.validation)
        return Spent(before + values * each, passes)

    def _encoder(self) -> nn.Module:
        assert self.encoder is not None
        return self.encoder

    def _timed(self, call: Callable[[], Result]) -> tuple[float, Result]:
        """Call it; give the seconds, too, until the device has done all of it."""
        began = time.perf_counter()
        result = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, result


def _merged(method: Method, task_vectors: TaskVectors, given: Statistics) -> StateDict:
    assert isinstance(method, RuleMethod)
    return make_model(method, task_vectors, given)


def _count(data: Mapping[str, LabeledImages]) -> int:
    return sum(len(part.labels) for part in data.values())
