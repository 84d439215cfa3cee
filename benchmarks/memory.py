"""Resident memory of merging and of an adaptation step over the number of tasks.

    python -m benchmarks.memory                          # ViT-L/14, every rule, up to 20 tasks
    python -m benchmarks.memory --model ViT-B-32 --tasks 1 5 --what ties_merging

Writes random task vectors once, in a temporary folder, and measures each case in a process of its
own: the most resident memory since its start (VmHWM, so Linux only), and the seconds from opening
the task vectors' files on. A case with the task vectors in files is followed by the same with them
in memory, where they fit. A rule that iterates takes two steps: more cost time and no memory. A
case is killed when less than 1.5 GiB of the machine's memory is available. The others go on after
one that was killed or that failed; with one that failed the exit code is 1 at the end. Progress
goes to stderr, results to stdout.
"""

import argparse
import logging
import math
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.adamerging import Engine
from adamerge_core.merging import RULES
from adamerge_core.task_vectors import TaskVectors
from benchmarks.machine import memory_available, say
from benchmarks.processes import WorkFailed, in_fresh_process
from benchmarks.random_models import RandomLayers
from tasks.running.resources import GIB, peak_resident

ADAPTATION = "adaptation_step"
_OF_GIVEN_MODELS = "published_coefficients"

DATA_FREE = tuple(
    sorted(n for n, rule in RULES.items() if rule.needs is None and n != _OF_GIVEN_MODELS)
)
CLASSES = 10
LEAVE_FREE = 1.5
"""GiB of the machine's memory; a case that would leave less is killed."""


@dataclass(frozen=True)
class Case:
    """One measurement."""

    what: str
    """A rule's name, or ADAPTATION."""
    tasks: int
    in_memory: bool
    model: str
    """open_clip's name; its image tower is what is merged."""
    folder: Path
    """Holds pretrained.safetensors and a file a task."""
    micro_batch: int


class AnnouncedLayers(RandomLayers):
    """Says which layer is being written."""

    def __getitem__(self, name: str) -> Tensor:
        say(f"  {name}")
        return super().__getitem__(name)


def image_tower(model: str) -> nn.Module:
    """open_clip's image tower with random weights; images [N, 3, H, W] -> features [N, D]."""
    import open_clip

    logging.disable(logging.WARNING)  # it warns that the weights are random
    return open_clip.create_model(model).visual


def task_files(folder: Path, tasks: int) -> dict[str, Path]:
    return {f"task{k}": folder / f"task{k}.safetensors" for k in range(tasks)}


def write_files(model: str, tasks: int, folder: Path) -> None:
    """The pretrained image tower in float32, and `tasks` task vectors in bfloat16."""
    pretrained = image_tower(model).state_dict()
    count = sum(tensor.numel() for tensor in pretrained.values())
    needed, free = (4 + 2 * tasks) * count, shutil.disk_usage(folder).free
    say(f"{model}: {count / 1e6:.0f} M parameters; writing {needed / GIB:.1f} GiB to {folder}")
    if needed > free:
        raise SystemExit(f"{folder} has {free / GIB:.1f} GiB free; give another --folder")
    checkpoints.save(folder / "pretrained.safetensors", pretrained)
    paths = task_files(folder, tasks)
    vectors = TaskVectors(pretrained, tuple(paths), AnnouncedLayers(pretrained, tasks))
    vectors.save(paths, torch.bfloat16)


def measure(case: Case) -> tuple[float, float]:
    """(peak resident GiB of this process since its start, seconds from opening the files on)."""
    pretrained = checkpoints.load(case.folder / "pretrained.safetensors")
    paths = task_files(case.folder, case.tasks)
    read = TaskVectors.load if case.in_memory else TaskVectors.open
    start = time.perf_counter()
    vectors = read(pretrained, paths)
    if case.what == ADAPTATION:
        adaptation_step(case, vectors)
    else:
        rule = RULES[case.what]
        rule(vectors, **({"steps": 2} if "steps" in rule.parameters else {}))
    return peak_resident(), time.perf_counter() - start


def adaptation_step(case: Case, vectors: TaskVectors) -> None:
    """Loss and gradient in layer-wise coefficients, with one image per task."""
    tower: Any = image_tower(case.model)  # open_clip's towers say their sizes, modules do not
    size = tower.image_size
    images = {name: torch.randn(1, 3, *size) for name in vectors.task_names}
    heads = {name: nn.Linear(tower.output_dim, CLASSES) for name in vectors.task_names}
    engine = Engine(tower, vectors, heads, case.micro_batch, precision="float32")
    shape = (len(vectors.layers), len(vectors.task_names))
    engine.loss_and_gradient(torch.full(shape, 0.3, dtype=torch.float64), images)


def report(case: Case) -> float:
    """Measure one case, print its line, give its peak in GiB; infinity if killed, NaN if failed."""
    what = f"{case.what}, {case.tasks} tasks, {'in memory' if case.in_memory else 'in files'}"
    say(f"{what} ...")
    try:
        result = in_fresh_process(measure, case, what, LEAVE_FREE)
    except WorkFailed as failure:
        line(case, str(failure))
        return math.nan
    if isinstance(result, str):
        line(case, result)
        return math.inf
    peak, seconds = result
    line(case, f"{peak:8.2f} GiB {seconds:10.1f} s")
    return peak


def line(case: Case, text: str) -> None:
    place = "in memory" if case.in_memory else "in files"
    print(f"{case.what:24} {case.tasks:3} tasks  {place:10} {text}", flush=True)


def report_both(case: Case) -> tuple[float, float]:
    """With the task vectors in files as the case says, then in memory."""
    in_files = report(case)
    # what failed fits no better in memory, and what it may need there was not measured
    failed = math.isnan(in_files)
    return in_files, math.inf if failed else report_in_memory(case, in_files)


def report_in_memory(case: Case, in_files: float) -> float:
    """The same with the task vectors in memory; infinity, too, where they would not fit."""
    pretrained = (case.folder / "pretrained.safetensors").stat().st_size
    # what the rules make of them at once, such as trimmed ones, comes to a second copy
    needed, available = in_files + 2 * case.tasks * pretrained / GIB, memory_available()
    if needed > 0.9 * available:
        line(case, f"left out: may need {needed:.1f} GiB of the {available:.1f} GiB available")
        return math.inf
    return report(replace(case, in_memory=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-L-14", help="open_clip's name of a ViT")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    everything = [*DATA_FREE, ADAPTATION]
    parser.add_argument("--what", nargs="+", default=everything, choices=everything)
    parser.add_argument("--micro-batch", type=int, default=1, help="images of a forward pass")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_files(arguments.model, max(arguments.tasks), folder)
        peaks = [
            report_both(Case(what, tasks, False, arguments.model, folder, arguments.micro_batch))
            for what in arguments.what
            for tasks in arguments.tasks
        ]
    in_files = [peak for peak, _ in peaks]
    measured = [peak for peak in in_files if not math.isnan(peak)]
    print(f"most with the task vectors in files: {max(measured, default=math.nan):.2f} GiB")
    if failed := sum(math.isnan(peak) for pair in peaks for peak in pair):
        sys.exit(f"{failed} of the measurements failed")


if __name__ == "__main__":
    main()
