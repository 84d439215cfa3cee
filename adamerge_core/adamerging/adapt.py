"""Test-time adaptation of the merging coefficients on unlabeled images."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from adamerge_core.adamerging import run_state as state
from adamerge_core.adamerging.early_stopping import EarlyStopping, split
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.optimizer import Optimizer
from adamerge_core.adamerging.settings import GRANULARITIES, AdaptationSettings, count_faults
from adamerge_core.adamerging.targets import Arrays, image_faults, target_faults
from adamerge_core.batches import batch_indices, on_device, rows_between, take
from adamerge_core.distributed import World, world
from adamerge_core.errors import InputError


@dataclass(frozen=True)
class AdaptationStep:
    """What one step did."""

    step: int
    """Counts from 1."""
    entropy: dict[str, float]
    """Per task the mean entropy in nats of the step's images, before its update."""
    coefficients: Tensor
    """[K] or [L, K] float64 after its update, in [0, 1] unless the clamp is none; the parameters of
    another parameterisation. With early stopping, the last step's are the best measured ones."""
    loss: dict[str, float]
    """Per task the mean of the objective over the step's images, before its update."""
    held_out_entropy: dict[str, float] | None = None
    """Per task the mean entropy of the images held out, after its update; None if not measured."""


def adapt(
    engine: Engine,
    images: Arrays,
    settings: AdaptationSettings,
    seed: int,
    resume_from: Path | None = None,
    save_every: int = 10,
    targets: Arrays | None = None,
) -> Iterator[AdaptationStep]:
    """Minimise the objective, summed over tasks, in the coefficients; yields every step.

    With entropy it is AdaMerging, equation 5. images: per task [N_k, ...], indexable by an array of
    integers; drawn without replacement, epoch by epoch, from `seed` (the published code shuffles
    anew at every step, so there an image may come again soon). targets: aligned with the
    images, labels [N_k] int64 or probabilities [N_k, classes], for objectives that need them.
    resume_from: a file that keeps the state, written every `save_every` steps once the caller has
    taken the step; when it exists, the run goes on from it and ends at the same coefficients as one
    never interrupted. The steps before it are not yielded again; the last one always is. A file of
    another run is refused: other settings, parameterisation, seed, tasks, layers, numbers of
    images, task vectors (by a hash of the names of all layers and of the values of the smallest,
    2^20 entries a task) or targets (by a hash of the labels, or of the likeliest classes). That the
    images' contents and the heads are the same is the caller's to know. The first step has no
    lowered backward pass (Engine, bfloat16_backward).

    In a torch.distributed group every rank calls it with the same arguments and takes every step;
    each reads and computes its share of the step's images, all get the same steps, and the first
    writes the file, which all read.
    Raises InputError when settings, images or targets are not usable, seed is no whole number from
    0 or save_every none from 1, the file is another run's, or ranks were given different runs;
    RankError when another rank ended or gave no answer.
    """
    _check(engine, images, settings, targets, {"seed": (seed, 0), "save_every": (save_every, 1)})
    names = engine.task_vectors.task_names
    rows = {name: split(len(images[name]), settings, (seed, k)) for k, name in enumerate(names)}
    start = engine.parameterisation.start(settings.granularity, settings.start)
    stopping = None
    if settings.held_out_share:
        held_out_rows = {name: held_out for name, (_, held_out) in rows.items()}
        stopping = EarlyStopping(images, held_out_rows, start)
    optimizer = Optimizer(start, settings)
    drawn_from = {name: adapted for name, (adapted, _) in rows.items()}
    counts = {name: len(images[name]) for name in names}
    run = state.described(
        engine, start, {**asdict(settings), "seed": seed, "images": counts}, targets
    )
    group, done = world(), 0
    if resume_from and resume_from.exists():
        done = state.load(resume_from, run, optimizer, stopping, engine)
    group.check_equal("adaptation in a group of ranks", {**run, "steps in the state file": done})
    if stopping and not done:
        stopping.measure(engine, 0, start)

    batches = _batches(images, targets or {}, drawn_from, settings, seed, done, group)
    sizes = dict.fromkeys(names, settings.images_per_task * settings.batches_per_step)
    for step, batch in enumerate(on_device(batches, engine.device), start=done + 1):
        labels = {name: batch[f"targets/{name}"] for name in names} if targets else None
        # Adam's first step is the gradient's sign: next to zero, rounding would turn it around
        result = engine.loss_and_gradient(
            optimizer.parameters, batch, labels, settings.objective, sizes, exact_backward=step == 1
        )
        # a step's batches are of one size: their mean losses sum to so many times the overall mean
        optimizer.step(result.gradient * settings.batches_per_step, step)
        held_out, last = None, step == settings.steps
        if stopping and (last or step % settings.measure_every == 0):
            held_out = stopping.measure(engine, step, optimizer.parameters)
            last = last or stopping.exhausted(settings.patience)
        learned = stopping.best_parameters if stopping and last else optimizer.parameters
        yield AdaptationStep(step, result.entropy, learned, result.loss, held_out)
        if last:
            return
        if resume_from and step % save_every == 0 and group.rank == 0:
            state.save(resume_from, run, step, optimizer, stopping, engine)


def _batches(
    images: Arrays,
    targets: Arrays,
    rows: Mapping[str, np.ndarray],
    settings: AdaptationSettings,
    seed: int,
    done: int,
    group: World,
) -> Iterator[dict[str, Tensor]]:
    """Per task the images of every step after the first `done`, and under targets/ what is known.

    A step's batches follow one another in the drawing order, so they are drawn as one. Of all
    tasks' images together, one after the other, a rank takes its share.
    """
    size = settings.images_per_task * settings.batches_per_step
    share = group.share(size * len(rows))
    own = rows_between(dict.fromkeys(rows, size), share.start, share.stop)
    for step in range(done, settings.steps):
        batch = {}
        for index, name in enumerate(rows):
            drawn = batch_indices(len(rows[name]), size, step, (seed, index))[own[name]]
            chosen = rows[name][drawn]
            batch[name] = take(images[name], chosen)
            if name in targets:
                batch[f"targets/{name}"] = take(targets[name], chosen)
        yield batch


def _check(
    engine: Engine,
    images: Arrays,
    settings: AdaptationSettings,
    targets: Arrays | None,
    counts: Mapping[str, tuple[int, int]],
) -> None:
    """counts: whole numbers by name, and the least that each may be."""
    faults = settings.faults()
    for name, (value, least) in counts.items():
        faults += count_faults(name, value, least)
    can_learn = engine.parameterisation.granularities
    if settings.granularity in GRANULARITIES and settings.granularity not in can_learn:
        faults.append(
            f"granularity = {settings.granularity!r}: the engine's parameterisation learns "
            f"{' or '.join(can_learn)}; set one of these or make the engine with another"
        )
    if not engine.task_vectors.layers:
        faults.append("no task changed any tensor of the pretrained model; nothing can be learned")
    faults += image_faults(engine.task_vectors, images)
    if not faults:
        faults = _too_few(engine, images, settings)
        faults += target_faults(engine, images, targets, settings.objective)
    if faults:
        raise InputError.listing("adaptation", faults)


def _too_few(engine: Engine, images: Arrays, settings: AdaptationSettings) -> list[str]:
    """Tasks of which the shares leave no image to adapt to."""
    return [
        f"task {name}: unlabeled_share = {settings.unlabeled_share} and held_out_share = "
        f"{settings.held_out_share} leave none of its {len(images[name])} images; lower the latter"
        for name in engine.task_vectors.task_names
        if not len(split(len(images[name]), settings, (0,))[0])
    ]
