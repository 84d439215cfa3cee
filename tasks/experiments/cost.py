"""cost: what each method of the suite takes to make its model.

Times differ from machine to machine and from run to run, as no other output does: the table says on
which machine they were measured, and stays as it is until something that a method depends on
changes.
"""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adamerge_core.batches import take
from adamerge_core.operations import operations
from tasks.experiments.spending import Spending
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, statistics_of, vectors_of
from tasks.graph.templates import ON_DEVICE, SEED, SUITE, axes, split_files, template
from tasks.running.resources import GIB, peak_resident
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments import cost as names
from tasks.suite.experiments.experiment import ALL_TASKS
from tasks.suite.methods import Method, parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method of the suite, of a stage a seed."""
    return [_template(suite, *each) for each in suite.merging.items()]


def _template(suite: "Suite", name: str, method: Method) -> Stage:
    size, encodes = str(suite.size), method.adapts or method.choose
    return template(
        f"cost_{name}",
        "tasks.experiments.cost",
        {"suite": SUITE, "model": suite.model.name, "size": size} | {"method": name, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *statistics_of(suite, method, suite.tasks),
            *(heads_of(suite, suite.tasks) if encodes else ()),
            *(split_files(suite.tasks, size, "test") if method.adapts else ()),
            *(split_files(suite.tasks, size, "val") if method.choose else ()),
        ],
        code=method.modules,
        params=[
            "tasks",
            f"methods.{name}",
            f"{names.Cost.key}.timed_steps",
            *(("compute", "model") if encodes else ON_DEVICE),
        ],
        outs=[paths.experiment(SUITE, "cost", name, SEED)],
    )


def run(work: Work) -> None:
    """Write what the method takes, in long form; its setting is the machine."""
    name, model, params = work.options["method"], work.options["model"], work.params
    tasks, method = params["tasks"], parse_method(params["methods"][name])
    encodes, device = bool(method.adapts or method.choose), set_up(params["compute"])
    size = work.options["size"]
    spending = Spending(
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


def _operations(spending: Spending, forward: int, backward: int) -> int:
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
