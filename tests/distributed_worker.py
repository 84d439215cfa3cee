"""What each of two gloo processes does for test_distributed, and what one process does alone."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import CLASSES, Problem, TinyEncoder, tiny_problem
from torch import Tensor

from adamerge_core import distributed
from adamerge_core.adamerging import (
    AdaptationSettings,
    AdaptationStep,
    Engine,
    SingularMasks,
    adapt,
    expert_targets,
)
from adamerge_core.adamerging import run_state as state
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct
from adamerge_core.statistics import fisher_diagonal, gram_matrices

STEPS = 12
GRANULARITIES = ("layer_wise", "task_wise")
OBJECTIVES = ("entropy", "cross_entropy", "self_labelling")
PLAIN: dict[str, Any] = {"steps": STEPS, "images_per_task": 3, "learning_rate": 0.03}

RUNS: dict[str, dict[str, Any]] = {
    **{f"{g}-{o}": {"granularity": g, "objective": o} for g in GRANULARITIES for o in OBJECTIVES},
    "early_stopping": {"held_out_share": 0.4, "measure_every": 2, "patience": 2, "steps": 60},
    "one_image": {"images_per_task": 1, "batches_per_step": 1},
    "micro_batch": {"images_per_task": 5, "batches_per_step": 1},
    "adarank": {"granularity": "singular_components", "clamp": "none"},
}
"""By name the settings that differ from PLAIN."""

COUNTS = (1, 4, 11, 130)
"""Images that are evaluated, in batches of 4."""

STATISTICS_COUNTS = (1, 9)
"""Images that statistics are computed from; of one, the second rank sees none."""

Steps = list[AdaptationStep]


class Watched(np.ndarray):
    """Images that count the rows read from them."""

    rows = 0

    @classmethod
    def of(cls, images: Tensor) -> Watched:
        return images.numpy().view(cls)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.rows += len(rows)
        return self.view(np.ndarray)[rows]


def engine_of(problem: Problem, run: str = "") -> Engine:
    options: dict[str, Any] = {"micro_batch": 2} if run == "micro_batch" else {}
    if run == "adarank":
        options["parameterisation"] = SingularMasks
    return Engine(TinyEncoder(), problem.task_vectors, problem.heads, **options)


def adapted(run: str, resume_from: Path | None = None, stop: int = 0) -> Steps:
    """The steps of one of RUNS; with `stop`, those before it."""
    problem = tiny_problem(seed=2)
    images = problem.images
    if run == "one_image":  # on two ranks one has none
        problem, images = _first_task(problem)
    chosen = AdaptationSettings(**{**PLAIN, **RUNS[run]})
    targets = None
    if chosen.objective == "cross_entropy":
        targets = {n: torch.arange(len(p)) % CLASSES[n] for n, p in images.items()}
    elif chosen.objective == "self_labelling":
        targets = experts(problem)
    steps = []
    for step in adapt(engine_of(problem, run), images, chosen, 3, resume_from, 5, targets):
        if step.step == stop:
            break
        steps.append(step)
    return steps


def _first_task(problem: Problem) -> tuple[Problem, dict[str, Tensor]]:
    name = next(iter(CLASSES))
    images = {name: problem.images[name]}
    finetuned = {name: problem.finetuned[name]}
    heads = {name: problem.heads[name]}
    return Problem(problem.encoder, problem.pretrained, finetuned, heads, images), images


def experts(problem: Problem) -> dict[str, Tensor]:
    vectors, heads = problem.task_vectors, problem.heads
    return expert_targets(problem.encoder, vectors, heads, problem.images, batch_size=4)


def hits() -> list[np.ndarray]:
    """Which of each of COUNTS images the pretrained model gets right."""
    problem = tiny_problem(images=max(COUNTS))
    name, classes = next(iter(CLASSES.items()))
    problem.encoder.load_state_dict(problem.pretrained)
    images, labels = problem.images[name], np.arange(max(COUNTS)) % classes
    return [
        correct(problem.encoder, problem.heads[name], images[:count], labels[:count], 4)
        for count in COUNTS
    ]


def statistics() -> dict[str, dict[str, Tensor]]:
    """Of the pretrained model, by kind and number of images, in batches of 2."""
    problem = tiny_problem(images=max(STATISTICS_COUNTS))
    name = next(iter(CLASSES))
    encoder, head = problem.encoder, problem.heads[name]
    encoder.load_state_dict(problem.pretrained)
    found = {}
    for count in STATISTICS_COUNTS:
        images = problem.images[name][:count]
        found[f"fisher_diagonal-{count}"] = fisher_diagonal(encoder, head, images, 2, probes=2)
        found[f"gram_matrices-{count}"] = gram_matrices(encoder, images, 2)
    return found


def rows_read() -> int:
    problem = tiny_problem()
    images = {name: Watched.of(pixels) for name, pixels in problem.images.items()}
    list(adapt(engine_of(problem), images, AdaptationSettings(**PLAIN), 0))  # type: ignore[arg-type]
    return sum(each.rows for each in images.values())


def precision_chosen(own: str) -> tuple[str, int]:
    """(what the engine takes, how often this rank measured), where measuring would give `own`."""
    problem = tiny_problem().to(torch.float32)
    measured = []

    def fake(run: Callable[[str], None], gradient: object, device: torch.device) -> str:
        measured.append(device)
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adamerge_core.adamerging.engine.faster_precision", fake)
        vectors = problem.task_vectors
        engine = Engine(problem.encoder, vectors, problem.heads, precision="auto")
        list(adapt(engine, problem.images, AdaptationSettings(**{**PLAIN, "steps": 2}), 0))
    return engine.precision, len(measured)


def refusal(**changes: Any) -> str:
    """What adapt says to these settings."""
    problem = tiny_problem()
    chosen = AdaptationSettings(**{**PLAIN, **changes})
    try:
        next(adapt(engine_of(problem), problem.images, chosen, 0))
    except InputError as error:
        return str(error)
    return ""


def left_alone(behaviour: Callable[[], None]) -> tuple[str, float]:
    """Rank 1 does this after two steps; what rank 0 then gets, and after how many seconds."""
    problem, rank = tiny_problem(), distributed.world().rank
    begun = time.monotonic()
    try:
        for step in adapt(engine_of(problem), problem.images, AdaptationSettings(), 0):
            if step.step == 2 and rank == 1:
                behaviour()
                return "", 0.0
    except distributed.RankError as error:
        return str(error), time.monotonic() - begun
    return "all steps were done", time.monotonic() - begun


def fail() -> None:
    raise ValueError("rank 1 fails, as it is told")


def main(rank: int, ports: list[int], folder: Path) -> None:
    """One of two ranks; pickles what it got."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        GLOO_SOCKET_IFNAME="lo",
        MASTER_PORT=str(ports[0]),
    )
    got: dict[str, Any] = {}
    with distributed.start("cpu", timeout=200) as device:
        got["world"] = (distributed.world(), device)
        got["runs"] = {run: adapted(run) for run in RUNS}
        got["again"] = adapted("layer_wise-entropy")
        got["hits"], got["experts"] = hits(), experts(tiny_problem())
        got["statistics"] = statistics()
        got["rows_read"] = rows_read()
        got["precision"] = precision_chosen(("bfloat16", "float32")[rank])
        got["refusals"] = [refusal(learning_rate=0.1 + rank), refusal(steps=5 + rank)]
        got["resumed"], got["saves"] = resumed(folder)
        got["of_one_process"] = adapted("early_stopping", folder / "one.safetensors")
        got["not_shared"] = unshared(folder, rank)
    os.environ["MASTER_PORT"] = str(ports[1])
    try:
        with distributed.start("cpu", timeout=200):
            got["failed"] = left_alone(fail)
    except ValueError as error:
        got["failed"] = (str(error), 0.0)
    os.environ["MASTER_PORT"] = str(ports[2])
    with distributed.start("cpu", timeout=3):
        got["stuck"] = left_alone(lambda: time.sleep(4.5))
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(got))


def resumed(folder: Path) -> tuple[Steps, int]:
    """(the steps after an interruption at the 8th, how often this rank wrote the state)."""
    path, saves, save = folder / "two.safetensors", [], state.save

    def counted(*arguments: Any) -> None:
        saves.append(arguments)
        save(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "save", counted)
        adapted("early_stopping", path, stop=8)
    return adapted("early_stopping", path), len(saves)


def unshared(folder: Path, rank: int) -> str:
    """What a rank says when only rank 0 sees the state file."""
    try:
        adapted("early_stopping", folder / ("two.safetensors", "absent.safetensors")[rank])
    except InputError as error:
        return str(error)
    return ""
