"""Steps per second of an adaptation on 1, 2, ... ranks of one machine.

    python -m benchmarks.scaling                                   # 1 and 2 ranks on the CPU
    python -m benchmarks.scaling --device cuda --ranks 1 2 4 8 --model ViT-B-32 --images 256
    python -m benchmarks.scaling --model mini --threads 2

The images of a step are the same, however many ranks share them; weights and images are random. A
rank on the CPU has a fixed number of threads, so ranks need as many cores between them. The first
steps are not timed. Efficiency is the gain over the first number of ranks, by rank.
"""

import argparse
import multiprocessing
import os
import socket
import time
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue

import torch

from adamerge_core import distributed
from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from benchmarks.random_models import CLASSES, IMAGE_SIZE, random_problem

WARM_UP = 3
"""Steps before those that are timed."""


@dataclass(frozen=True)
class Case:
    """What every rank does."""

    model: str
    """One of IMAGE_SIZE."""
    tasks: int
    images: int
    """Of all tasks in a step, on all ranks."""
    steps: int
    device: str
    threads: int


def measure(case: Case, ranks: int, rank: int, port: int, answers: "SimpleQueue[float]") -> None:
    """One rank; the first answers with its seconds per step."""
    torch.set_num_threads(case.threads)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    per_task = case.images // case.tasks
    settings = AdaptationSettings(
        steps=WARM_UP + case.steps, images_per_task=per_task, batches_per_step=1
    )
    ends = []
    with distributed.start(case.device) as device:
        problem = random_problem(case.model, case.tasks, per_task, str(device))
        engine = Engine(
            problem.encoder, problem.task_vectors(clone=True), problem.heads, precision="float32"
        )
        for _ in adapt(engine, problem.images, settings, seed=0):
            ends.append(time.perf_counter())  # the step's losses have been read: nothing is pending
    if rank == 0:
        answers.put((ends[-1] - ends[WARM_UP - 1]) / case.steps)


def steps_per_second(case: Case, ranks: int) -> float:
    """Of so many ranks, each a process of its own. Raises SystemExit when one fails."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    answers: SimpleQueue[float] = spawn.SimpleQueue()
    processes = [
        spawn.Process(target=measure, args=(case, ranks, rank, port, answers), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"{ranks} ranks: one has failed; its message is above")
    return 1 / answers.get()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: must be at least 1")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--model", default="tiny", choices=IMAGE_SIZE)
    parser.add_argument("--tasks", type=positive, default=8)
    parser.add_argument(
        "--images", type=positive, default=256, help="of a step, all tasks and ranks"
    )
    parser.add_argument("--steps", type=positive, default=20, help="that are timed")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive, default=1, help="of each rank")
    given = parser.parse_args()
    if given.tasks > len(CLASSES):
        parser.error(f"--tasks {given.tasks}: must be at most {len(CLASSES)}")
    if given.images % given.tasks:
        parser.error(f"--images {given.images}: must be a multiple of --tasks {given.tasks}")
    case = Case(given.model, given.tasks, given.images, given.steps, given.device, given.threads)
    print(
        f"{case.model}: {case.tasks} tasks, {case.images} images a step; {case.device}, "
        f"{case.threads} threads a rank, {os.cpu_count()} cores"
    )
    first, base = given.ranks[0], 0.0
    for ranks in given.ranks:
        rate = steps_per_second(case, ranks)
        base = base or rate
        gain = rate / base
        print(
            f"{ranks:3} ranks  {rate:8.2f} steps/s  {gain:5.2f} times that of {first}  "
            f"efficiency {gain * first / ranks:4.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
