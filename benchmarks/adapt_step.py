"""Seconds and memory of one adaptation step, beside other arrangements of the same computation.

    python -m benchmarks.adapt_step                       # ViT-B/32, 8 tasks, 16 images per task
    python -m benchmarks.adapt_step --model mini --precision float32 bfloat16
    python -m benchmarks.adapt_step --device cuda --whole-run 500 --precision bfloat16

published: merges again for every task's forward and differentiates through every merge in one
backward. merge_once: merges once and goes backward through the merge once per task. ours: the
Engine; ours_in_files: with the task vectors in files; ours_compiled: with its encoder compiled by
torch.compile (on a GPU with CUDA graphs), run only where it is named. floor: forward and backward
of the same images through one fixed model, without any merging. merging: what ours adds to that,
the merge and the inner products alone.

Each arrangement runs in a process of its own: peak memory is that process's since its start (VmHWM,
so Linux only; on a GPU what PyTorch had allocated there). A process is killed when less than
--leave-free GiB of the machine's memory is available; the others go on, and what was killed is
measured with half as many tasks. Then ours runs in turns with each other arrangement, in one
process, and the ratios are those of neighbouring steps, so that a machine that slows down slows
both. Progress goes to stderr, results to stdout. Details: docs/benchmarks.md.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

import torch

from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from adamerge_core.adamerging.precision import LOWERED
from adamerge_core.operations import operations as of_passes
from adamerge_core.task_vectors import TaskVectors
from benchmarks.arrangements import ARRANGEMENTS, COMPILED, IN_FILES, MERGING, OURS, engine
from benchmarks.machine import memory_available, say
from benchmarks.processes import in_fresh_process
from benchmarks.random_models import CLASSES, IMAGE_SIZE, Problem, random_problem
from tasks.running.resources import GIB, peak_resident

COEFFICIENT = 0.3
POOL = 256
"""Images of a task that a whole run draws from."""

H100_PEAKS = {"float32": 66.9e12, "tf32": 494.7e12, "bfloat16": 989.4e12}
"""Floating-point operations a second of an H100 SXM, without sparsity (NVIDIA's data sheet)."""
H100_BANDWIDTH = 3.35e12
"""Bytes a second."""

Result = TypeVar("Result", bound="Measurement | WholeRun")
Variant = tuple[str, str]
"""(arrangement, precision)"""


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    variants: tuple[Variant, ...]
    """Run in turns."""
    model: str
    tasks: int
    images_per_task: int
    micro_batch: int
    steps: int
    device: str
    threads: int
    tf32: bool
    leave_free: float
    """GiB; the process is killed when less of the machine's memory is available."""
    folder: Path
    """For task vectors in files."""


@dataclass(frozen=True)
class Measurement:
    seconds: list[list[float]]
    """Per variant those of each step."""
    peak: float
    """GiB"""


@dataclass(frozen=True)
class WholeRun:
    seconds: float
    peak: float
    """GiB"""
    images_per_task: int
    """A step."""
    operations_per_image: int
    """Floating-point, of one image's forward and backward."""
    bytes_per_step: int
    """That merge and inner products cannot avoid to move."""


# What a process does


def measure(case: Case) -> Measurement:
    """One step of each variant to warm up, then `case.steps` of each, in turns."""
    problem = prepare(case, case.images_per_task)
    on_device = {name: part.to(case.device) for name, part in problem.images.items()}
    problem = replace(problem, images=on_device)
    vectors = task_vectors(problem, {name for name, _ in case.variants}, case.folder)
    layers = len(dict(problem.encoder.named_parameters()))
    coefficients = torch.full((layers, case.tasks), COEFFICIENT, dtype=torch.float64)
    steps = [
        ARRANGEMENTS[name](problem, vectors.get(name), case.micro_batch, precision)
        for name, precision in case.variants
    ]
    turns = [
        [_seconds(partial(step, coefficients), case.device) for step in steps]
        for _ in range(1 + case.steps)
    ]
    seconds = [list(column) for column in zip(*turns[1:], strict=True)]
    return Measurement(seconds, peak_memory(case.device))


def task_vectors(problem: Problem, arrangements: set[str], folder: Path) -> dict[str, TaskVectors]:
    """What each arrangement takes; the floor takes none."""
    found = {}
    in_memory = arrangements - {"floor", IN_FILES}
    if in_memory:
        vectors = problem.task_vectors(clone=bool(arrangements & {*OURS, MERGING}))
        found = dict.fromkeys(in_memory, vectors)
    if IN_FILES in arrangements:
        found[IN_FILES] = problem.stored_task_vectors(folder)
    return found


def measure_whole_run(case: Case) -> WholeRun:
    """`adapt` from its first step to its last, start of the device's libraries included."""
    problem = prepare(case, POOL)
    name, precision = case.variants[0]
    vectors = task_vectors(problem, {name}, case.folder)[name]
    chosen = engine(problem, vectors, case.micro_batch, precision, name == COMPILED)
    settings = AdaptationSettings(steps=case.steps, images_per_task=case.images_per_task)
    seconds = _seconds(lambda: _exhaust(chosen, problem, settings), case.device)
    stacks = sum(stack.nbytes for stack in vectors.layers.values())
    tensors = stacks // case.tasks
    # merge: read stacks and pretrained, write merged; inner products: read stacks and gradients
    moved = 2 * stacks + 3 * tensors
    peak = peak_memory(case.device)
    images = settings.images_per_task * settings.batches_per_step
    return WholeRun(seconds, peak, images, operations(problem, case.device), moved)


def prepare(case: Case, images_per_task: int) -> Problem:
    Path("/proc/self/oom_score_adj").write_text("1000")  # if the kernel must kill one, then this
    torch.set_num_threads(case.threads)
    if case.tf32:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return random_problem(case.model, case.tasks, images_per_task, case.device)


def operations(problem: Problem, device: str) -> int:
    """Floating-point operations of one image's forward and backward, by PyTorch's counter."""
    name = next(iter(problem.heads))
    image = problem.images[name][:1].to(device)
    return sum(of_passes(problem.encoder, problem.heads[name], image))


def peak_memory(device: str) -> float:
    """GiB: the most resident memory since the process began, or the most allocated on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return peak_resident()


def _exhaust(engine: Engine, problem: Problem, settings: AdaptationSettings) -> None:
    for step in adapt(engine, problem.images, settings, seed=0):
        if step.step % 50 == 0:
            say(f"  step {step.step}")


def _seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


# The process that starts the others


def in_own_process(work: Callable[[Case], Result], case: Case) -> Result | str:
    """What `work` gives for `case`, or what killed its process."""
    what = " and ".join(f"{name} {precision}" for name, precision in case.variants)
    say(f"{case.model}, {case.tasks} tasks: {what} ...")
    return in_fresh_process(work, case, what, case.leave_free)


def report_step(case: Case, arrangements: list[str], precisions: list[str]) -> None:
    """Each arrangement alone, ours in turns with others; what was killed again with fewer tasks."""
    count = case.tasks * case.images_per_task
    print(
        f"\n{case.model}, {case.tasks} tasks, {case.images_per_task} images each, micro-batch "
        f"{case.micro_batch}, {case.device}, {case.threads} threads\n"
        f"{case.steps} steps after one to warm up: median (least to most); "
        f"{memory_available():.1f} GiB of memory available"
    )
    variants = [
        (name, precision)
        for precision in precisions
        for name in arrangements
        if precision == "float32" or name != MERGING
        if precision != "bfloat16_backward" or name in ("ours", IN_FILES)
    ]
    alone = {
        variant: report_alone(replace(case, variants=(variant,)), count) for variant in variants
    }
    lived = [variant for variant, result in alone.items() if result]
    for over, under in comparisons(lived):
        report_ratio(replace(case, variants=(over, under)), alone)
    killed = {name for name, precision in alone.keys() - set(lived)}
    if killed and case.tasks > 1:
        again = [name for name in arrangements if name in {*killed, *OURS}]
        report_step(replace(case, tasks=case.tasks // 2), again, precisions)


def report_alone(case: Case, images: int) -> Measurement | None:
    result = in_own_process(measure, case)
    label = " ".join(case.variants[0])
    if isinstance(result, str):
        print(f"{label:22} {result}", flush=True)
        return None
    seconds = result.seconds[0]
    rate = f"  {images / statistics.median(seconds):.4g} images/s"
    shown = "" if case.variants[0][0] == MERGING else rate
    print(f"{label:22} {spread(seconds, ' s/step')}{shown}  {result.peak:.2f} GiB", flush=True)
    return result


def comparisons(variants: list[Variant]) -> list[tuple[Variant, Variant]]:
    """(numerator, denominator) of the ratios: each is a cost over what it is measured against."""
    pairs = []
    for mine in (variant for variant in variants if variant[0] in OURS):
        for other in variants:
            if other[1] == mine[1] and other[0] not in {*OURS, MERGING}:
                pairs.append((mine, other) if other[0] == "floor" else (other, mine))
    added = ((MERGING, "float32"), ("floor", "float32"))
    if set(added) <= set(variants):
        pairs.append(added)
    first = ("ours", "float32")
    others = [*(("ours", precision) for precision in LOWERED), (COMPILED, "float32")]
    among_ours = [(first, other) for other in others]
    return [*pairs, *(pair for pair in among_ours if set(pair) <= set(variants))]


def report_ratio(case: Case, alone: dict[Variant, Measurement | None]) -> None:
    """Of the time from neighbouring steps in one process, of the memory from processes alone."""
    result = in_own_process(measure, case)
    over, under = case.variants
    label = f"{' '.join(over)} / {' '.join(under)}"
    if isinstance(result, str):
        print(f"{label:42} in one process: {result}", flush=True)
        return
    ratios = [a / b for a, b in zip(*result.seconds, strict=True)]
    peaks = [measured.peak for v in case.variants if (measured := alone[v])]
    print(f"{label:42} time {spread(ratios)}  memory {peaks[0] / peaks[1]:.3f}", flush=True)


def spread(values: list[float], unit: str = "") -> str:
    median = statistics.median(values)
    return f"{median:.4g}{unit} ({min(values):.4g} to {max(values):.4g})"


def report_whole_run(case: Case, peak_operations: float | None, bandwidth: float | None) -> None:
    """Time, operations and bytes of a whole run; shares of the peaks where they are known."""
    result = in_own_process(measure_whole_run, case)
    print(
        f"\n{case.model}, {case.tasks} tasks, {' '.join(case.variants[0])}, micro-batch "
        f"{case.micro_batch}, {case.device}"
    )
    if isinstance(result, str):
        print(result, flush=True)
        return
    seconds = result.seconds
    per_step = case.tasks * result.images_per_task
    operations = result.operations_per_image * per_step * case.steps
    moved = result.bytes_per_step * case.steps
    print(
        f"{case.steps} steps of {result.images_per_task} images per task: {seconds:.2f} s, "
        f"{seconds / case.steps:.4g} s/step, {per_step * case.steps / seconds:.4g} images/s, "
        f"{result.peak:.2f} GiB"
    )
    print(
        f"operations: {result.operations_per_image / 1e6:.4g} M per image, "
        f"{operations / 1e12:.4g} T in all, {operations / seconds / 1e12:.4g} T/s"
        + share(operations / seconds, peak_operations)
    )
    print(
        f"merge and inner products: {result.bytes_per_step / 1e6:.4g} MB per step, "
        f"{moved / 1e9:.4g} GB in all, {moved / seconds / 1e9:.4g} GB/s"
        + share(moved / seconds, bandwidth)
    )
    if peak_operations and bandwidth:
        least = operations / peak_operations + moved / bandwidth
        print(f"at both peaks it would take {least:.3g} s, {least / seconds:.1%} of what it took")
    sys.stdout.flush()


def share(rate: float, peak: float | None) -> str:
    return f", {rate / peak:.1%} of the peak" if peak else ""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["ViT-B-32"], choices=IMAGE_SIZE)
    parser.add_argument("--tasks", type=int, nargs="+", default=[len(CLASSES)], help="1 to 8")
    parser.add_argument("--images-per-task", type=int, default=16, help="a whole run takes twice")
    parser.add_argument("--micro-batch", type=int, default=16, help="of ours and the floor")
    parser.add_argument("--steps", type=int, default=5, help="timed ones, after one to warm up")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--precision", nargs="+", default=["float32"], choices=["float32", *LOWERED]
    )
    parser.add_argument(
        "--arrangements",
        nargs="+",
        choices=ARRANGEMENTS,
        help="all but ours_compiled; a whole run is of ours",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tf32", action="store_true", help="float32 products in TF32 on a GPU")
    parser.add_argument(
        "--leave-free", type=float, default=1.5, help="GiB of the machine's memory; see above"
    )
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--whole-run", type=int, metavar="STEPS", help="time adapt instead")
    parser.add_argument("--peak-tflops", type=float, help="of the device; on a GPU an H100's")
    parser.add_argument("--peak-bandwidth", type=float, help="TB/s of the device; likewise")
    arguments = parser.parse_args()
    counts = (*arguments.tasks, arguments.images_per_task, arguments.micro_batch, arguments.steps)
    if min(*counts, arguments.threads) < 1 or max(arguments.tasks) > len(CLASSES):
        parser.error(f"counts must be at least 1, and --tasks at most {len(CLASSES)}")
    if arguments.whole_run and set(arguments.arrangements or []) - set(OURS):
        parser.error(f"a whole run is of one of {', '.join(OURS)}")
    if not arguments.arrangements:
        most = [name for name in ARRANGEMENTS if name != COMPILED]
        arguments.arrangements = ["ours"] if arguments.whole_run else most
    return arguments


def peaks(arguments: argparse.Namespace, precision: str) -> tuple[float | None, float | None]:
    """(operations, bytes) a second that the device reaches at best; None where nobody says."""
    known = arguments.device == "cuda"
    kind = "tf32" if arguments.tf32 and precision == "float32" else precision
    # of bfloat16_backward there is none: its forward pass has another than its backward pass
    operations = H100_PEAKS.get(kind) if known else None
    bandwidth = H100_BANDWIDTH if known else None
    if arguments.peak_tflops:
        operations = arguments.peak_tflops * 1e12
    if arguments.peak_bandwidth:
        bandwidth = arguments.peak_bandwidth * 1e12
    return operations, bandwidth


def main() -> None:
    arguments = parse()
    # an exit ends the measuring process too, which nobody else would watch
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run(arguments, Path(folder))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    for model in arguments.model:
        for tasks in arguments.tasks:
            case = Case(
                variants=(),
                model=model,
                tasks=tasks,
                images_per_task=arguments.images_per_task,
                micro_batch=arguments.micro_batch,
                steps=arguments.whole_run or arguments.steps,
                device=arguments.device,
                threads=arguments.threads,
                tf32=arguments.tf32,
                leave_free=arguments.leave_free,
                folder=folder,
            )
            if not arguments.whole_run:
                report_step(case, arguments.arrangements, arguments.precision)
                continue
            for name, precision in product(arguments.arrangements, arguments.precision):
                chosen = replace(case, variants=((name, precision),))
                report_whole_run(chosen, *peaks(arguments, precision))


if __name__ == "__main__":
    main()
