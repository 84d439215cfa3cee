"""cost: what each method of the suite takes to make its model.

Times differ from machine to machine and from run to run, as no other output does: the table says on
which machine they were measured, and stays as it is until something that a method depends on
changes.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.operations import operations
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Judge
from adamerge_core.vision.images import LabeledImages
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import ON_DEVICE, SEED, SUITE, axes, split_files, template
from tasks.running.resources import GIB, peak_resident
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import Statistics, open_statistics, open_task_vectors
from tasks.suite.experiments import tables as names
from tasks.suite.experiments.cost import Cost
from tasks.suite.experiments.tables import ALL_TASKS
from tasks.suite.methods import AdaptMethod, Method, parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

Result = TypeVar("Result")


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method of the suite, of a stage a seed."""
    return [_template(suite, *each) for each in suite.merging.items()]


def _template(suite: "Suite", name: str, method: Method) -> Stage:
    size, encodes = str(suite.size), method.adapts or method.choose
    return template(
        f"cost_{name}",
        "tasks.experiments.cost",
        options_of(suite) | {"method": name, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *statistics_of(suite, [method], suite.tasks),
            *(heads_of(suite, suite.tasks) if encodes else ()),
            *(split_files(suite.tasks, size, "test") if method.adapts else ()),
            *(split_files(suite.tasks, size, "val") if method.choose else ()),
        ],
        code=method.modules,
        params=[
            "tasks",
            f"methods.{name}",
            f"{Cost.key}.timed_steps",
            *(("compute", "model") if encodes else ON_DEVICE),
        ],
        outs=[paths.experiment(SUITE, "cost", name, SEED)],
    )


@dataclass(frozen=True)
class _Spent:
    """What was spent on a model."""

    seconds: float
    forward: int = 0
    """Images whose forward pass through the encoder was computed."""
    backward: int = 0
    parameters: int = 0
    """Learned numbers, none of which is a weight of the model."""

    def with_more(self, other: "_Spent") -> "_Spent":
        """Add what another part of the same method spent; it learns the same parameters."""
        return _Spent(
            self.seconds + other.seconds,
            self.forward + other.forward,
            self.backward + other.backward,
            max(self.parameters, other.parameters),
        )


@dataclass(frozen=True)
class _Spending:
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

    def of(self, method: Method) -> _Spent:
        """Make the method's model, and say what that takes; with `choose` of all values tried."""
        if not method.choose:
            return self._of_one(method)[0]
        spent, model = _Spent(0.0), None
        for number, value in enumerate(method.choose.values, start=1):
            one, model = self._of_one(method.with_value(value))
            spent = spent.with_more(one)
            self.work.report.progress(number, len(method.choose.values), self.work.name)
        return spent.with_more(self._of_choosing(method, model or {}))

    def _of_one(self, method: Method) -> tuple[_Spent, StateDict]:
        if isinstance(method, AdaptMethod):
            return self._of_adapting(method)
        merge = partial(make_model, method, self.task_vectors, self.statistics)
        seconds, model = self._timed(merge)
        return _Spent(seconds), model

    def _of_adapting(self, method: AdaptMethod) -> tuple[_Spent, StateDict]:
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
        return _Spent(seconds, forward, images, adaptation.start().numel()), model

    def _of_choosing(self, method: Method, model: StateDict) -> _Spent:
        """Measure one model by the criterion; each of the values tried takes as long."""
        assert method.choose is not None
        by, values, encoder = method.choose.by, len(method.choose.values), self._encoder()
        before, judge = self._timed(
            lambda: Judge.prepare(by, encoder, self.task_vectors, self.heads, self.validation)
        )
        each, _ = self._timed(lambda: judge.measure(model))
        experts = judge.criterion.needs == "experts"
        passes = (values + 1 if experts else values) * _count(self.validation)
        return _Spent(before + values * each, passes)

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


def _count(data: Mapping[str, LabeledImages]) -> int:
    return sum(len(part.labels) for part in data.values())


def run(work: Work) -> None:
    """Write what the method takes, in long form; its setting is the machine."""
    name, model, params = work.options["method"], work.options["model"], work.params
    tasks, method = params["tasks"], parse_method(params["methods"][name])
    encodes, device = bool(method.adapts or method.choose), set_up(params["compute"])
    size = work.options["size"]
    spending = _Spending(
        work,
        device,
        open_task_vectors(model, tasks, work.seed).to(device),
        open_statistics(model, method.needs, tasks, work.seed, device),
        open_encoder(params["model"], device) if encodes else None,
        open_heads(model, tasks, device) if encodes else {},
        open_split(tasks, size, "test") if method.adapts else {},
        open_split(tasks, size, "val") if method.choose else {},
        params["experiments"]["cost"]["timed_steps"],
    )
    spent = spending.of(method)
    values = {
        names.PARAMETERS: spent.parameters,
        names.SECONDS: spent.seconds,
        names.MEMORY: _peak(device),
        names.FORWARD: spent.forward,
        names.BACKWARD: spent.backward,
        names.OPERATIONS: spent.forward and _operations(spending, spent.forward, spent.backward),
    }
    named = {"setting": _machine(device), "method": name, "seed": work.seed, "task": ALL_TASKS}
    write_long(
        paths.experiment(work.options["suite"], "cost", name, work.seed),
        MEASURED_IN_EXPERIMENT,
        [{**named, "metric": metric, "value": float(value)} for metric, value in values.items()],
    )


def _operations(spending: _Spending, forward: int, backward: int) -> int:
    """Those of so many images' passes, each as of one image of the first task."""
    encoder, data = spending.encoder, spending.test or spending.validation
    assert encoder is not None
    task, part = next(iter(data.items()))
    image = take(part.images, slice(1)).to(spending.device)
    of_one = operations(encoder.requires_grad_(True), spending.heads[task], image)
    return of_one[0] * forward + of_one[1] * backward


def _peak(device: torch.device) -> float:
    """GiB: the most resident memory since the process began, or the most allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return peak_resident()


def _machine(device: torch.device) -> str:
    """Name what was computed on."""
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, {threads} of the CPU"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {threads}"


if __name__ == "__main__":
    run_stage(run)
