"""Test-time adaptation of the merging coefficients on unlabeled images.

A step of AdaMerging, as `adapt` repeats it:

    x_1 .. x_K                                          unlabeled images of every task
    theta^l = theta_pre^l + sum_k lambda_k^l tau_k^l    merge once; the theta^l are leaves
    loss = sum_k mean H(head_k(encoder(x_k; theta)))    forward over all tasks' images
    g^l = d loss / d theta^l                            backward, as far as the leaves
    d loss / d lambda_k^l = <g^l, tau_k^l>              one pass over the task vectors
    lambda = Adam(lambda, d loss / d lambda)            and a clamp to [0, 1]

H is the entropy of the softmax. Engine.loss_and_gradient takes the images and gives the gradient,
Optimizer.step makes the update.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from torch import Tensor

from adamerge_core.adamerging import run_state
from adamerge_core.adamerging.early_stopping import EarlyStopping, split
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.non_finite import refuse_non_finite, refuse_non_finite_update
from adamerge_core.adamerging.optimizer import Optimizer
from adamerge_core.adamerging.settings import GRANULARITIES, AdaptationSettings
from adamerge_core.adamerging.targets import Arrays, image_faults, target_faults
from adamerge_core.adamerging.turns import Turns, tasks_at, turn_faults, turns_before
from adamerge_core.batches import batch_indices, on_device, rows_between, take
from adamerge_core.distributed import World, world
from adamerge_core.errors import InputError
from adamerge_core.parameters import WHOLE_NUMBERS, count_faults


@dataclass(frozen=True)
class AdaptationStep:
    """One step of the adaptation: what it measured, and the coefficients after its update."""

    step: int
    """The step's number, from 1."""
    entropy: dict[str, float]
    """Per task of the step the mean entropy in nats of its images, before the update."""
    coefficients: Tensor
    """[K] or [L, K] float64 after the update, in [0, 1] unless the clamp is none; with another
    parameterisation its parameters. Early stopping puts the best measured ones in the last step."""
    loss: dict[str, float]
    """Per task of the step the mean of the objective over its images, before the update."""
    held_out_entropy: dict[str, float] | None = None
    """Per task the mean entropy in nats of the held-out images, after the update; None where the
    step did not measure it."""


def adapt(
    engine: Engine,
    images: Arrays,
    settings: AdaptationSettings,
    seed: int,
    resume_from: str | PathLike[str] | None = None,
    save_every: int = 10,
    targets: Arrays | None = None,
    turns: Turns | None = None,
) -> Iterator[AdaptationStep]:
    """Minimise the objective, summed over tasks, in the coefficients; yields every step.

    With entropy as the objective this is AdaMerging, equation 5. images: per task [N_k, ...],
    indexable by an array of integers; drawn without replacement, epoch by epoch, from `seed` (the
    published code shuffles anew at every step, so there an image may come again soon). targets:
    aligned with the images, labels [N_k] int64 or probabilities [N_k, classes], for objectives that
    need them. turns: the tasks that give images in each step, and again from the first; None for
    all in every step. A task in no turn keeps its place in the merge, and none of its images is
    drawn. The first step has no lowered backward pass (Engine, bfloat16_backward).

    resume_from: a file that keeps the state, written every `save_every` steps once the caller has
    taken the step. When it exists, the run goes on from it and ends at the same coefficients as an
    uninterrupted one. The steps before it are not yielded again; the last one always is. A file of
    another run is refused: other settings, turns, parameterisation, seed, tasks, layers, numbers of
    images, task vectors (by a hash of the names of all layers and of the values of the smallest,
    2^20 entries a task) or targets (by a hash of the labels, or of the likeliest classes). The
    caller must see to it that the images' contents and the heads are the same. A damaged file is
    refused as well; its checksum tells.

    In a torch.distributed group every rank calls it with the same arguments and takes every step.
    Each rank reads and computes its share of the step's images, and all get the same steps; the
    first rank writes the file, and all read it.

    Raises InputError when settings, images, targets or turns are not usable, seed is no whole
    number from 0 or save_every none from 1, or ranks were given different runs; StateFileError when
    the file is damaged or another run's; NonFiniteError, with the last good parameters, at the step
    whose loss, gradient or update is not finite; RankError when another rank ended or gave no
    answer.
    """
    counts = {"seed": (seed, 0), "save_every": (save_every, 1)}
    _check(engine, images, settings, targets, turns, counts)
    names = engine.task_vectors.task_names
    rows = {name: split(len(images[name]), settings, (seed, k)) for k, name in enumerate(names)}
    adapted = {name: drawn_from for name, (drawn_from, _) in rows.items()}
    held_out = {name: kept_out for name, (_, kept_out) in rows.items()}
    start = engine.parameterisation.start(settings.granularity, settings.start)
    optimizer = Optimizer(start, settings)
    stopping = EarlyStopping(images, held_out, start) if settings.held_out_share else None

    sizes = {name: len(images[name]) for name in names}
    options = {**asdict(settings), "seed": seed, "images": sizes}
    options |= {"turns": turns} if turns else {}
    run = run_state.described(engine, start, options, targets)
    group, done = world(), 0
    state = None if resume_from is None else Path(resume_from)
    if state and os.path.lexists(state):
        done = run_state.load(state, run, optimizer, stopping, engine, settings.steps - 1)
    group.check_equal("adaptation in a group of ranks", {**run, "steps in the state file": done})
    if stopping and not done:
        refuse_non_finite(engine, 0, start, stopping.measure(engine, 0, start), {})

    batches = _batches(images, targets or {}, adapted, settings, turns, seed, done, group)
    size = settings.images_per_task * settings.batches_per_step
    for step, batch in enumerate(on_device(batches, engine.device), start=done + 1):
        sizes = dict.fromkeys(tasks_at(step - 1, turns, names), size)
        labels = {name: batch[f"targets/{name}"] for name in sizes} if targets else None
        # Adam's first step is the gradient's sign: next to zero, rounding would turn it around
        before = optimizer.parameters
        result = engine.loss_and_gradient(
            before, batch, labels, settings.objective, sizes, exact_backward=step == 1
        )
        refuse_non_finite(engine, step, before, result.loss, batch, result.gradient)
        # a step's batches are of one size: their mean losses sum to so many times the overall mean
        optimizer.step(result.gradient * settings.batches_per_step, step)
        refuse_non_finite_update(step, before, optimizer.parameters, settings.learning_rate)

        measured, last = None, step == settings.steps
        if stopping and (last or step % settings.measure_every == 0):
            measured = stopping.measure(engine, step, optimizer.parameters)
            refuse_non_finite(engine, step, optimizer.parameters, measured, {})
            last = last or stopping.exhausted(settings.patience)
        learned = stopping.best_parameters if stopping and last else optimizer.parameters
        yield AdaptationStep(step, result.entropy, learned, result.loss, measured)
        if last:
            return
        if state and step % save_every == 0 and group.rank == 0:
            run_state.save(state, run, step, optimizer, stopping, engine)


def _batches(
    images: Arrays,
    targets: Arrays,
    rows: Mapping[str, np.ndarray],
    settings: AdaptationSettings,
    turns: Turns | None,
    seed: int,
    done: int,
    group: World,
) -> Iterator[dict[str, Tensor]]:
    """Draw every step's images after the first `done` steps: by task, targets as targets/<task>.

    rows: per task the images that may be drawn. A step's batches follow one another in the drawing
    order, so they are drawn as one. A rank takes its share of the step's tasks' images joined end
    to end.
    """
    size, names = settings.images_per_task * settings.batches_per_step, list(rows)
    for step in range(done, settings.steps):
        batch, here = {}, tasks_at(step, turns, names)
        share = group.share(size * len(here))
        own = rows_between(dict.fromkeys(here, size), share.start, share.stop)
        for name in here:
            order = (seed, names.index(name))
            turn = turns_before(step, turns, name)
            drawn = batch_indices(len(rows[name]), size, turn, order)[own[name]]
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
    turns: Turns | None,
    counts: Mapping[str, tuple[int, int]],
) -> None:
    """Raise one InputError that lists every fault; counts: by name a number and its minimum."""
    if not isinstance(engine, Engine) or not isinstance(settings, AdaptationSettings):
        given = f"{type(engine).__name__} and {type(settings).__name__}"
        raise InputError(f"adaptation of {given}: give an Engine and AdaptationSettings")
    faults = settings.faults()
    for name, (value, least) in counts.items():
        faults += count_faults(name, value, least, WHOLE_NUMBERS)
    can_learn = engine.parameterisation.granularities
    if settings.granularity in GRANULARITIES and settings.granularity not in can_learn:
        faults.append(
            f"granularity = {settings.granularity!r}: the engine's parameterisation learns "
            f"{' or '.join(can_learn)}; set one of these or make the engine with another"
        )
    if not engine.task_vectors.layers:
        faults.append("no task changed any tensor of the pretrained model; nothing can be learned")
    faults += image_faults(engine.task_vectors, images)
    if turns is not None:
        faults += turn_faults(turns, engine.task_vectors.task_names)
    if not faults:
        faults = _unlike(engine, images)
    if not faults:
        faults = _too_few(engine, images, settings)
        faults += target_faults(engine, images, targets, settings.objective)
    if faults:
        raise InputError.listing("adaptation", faults)


def _unlike(engine: Engine, images: Arrays) -> list[str]:
    """Say what keeps all tasks' images from being one batch: a line, or none."""
    forms = {
        name: f"{list(images[name].shape[1:])} {str(images[name].dtype).removeprefix('torch.')}"
        for name in engine.task_vectors.task_names
    }
    if len(set(forms.values())) <= 1:
        return []
    each = ", ".join(f"{form} of task {name}" for name, form in forms.items())
    return [f"images differ in shape or dtype: {each}; give all tasks' alike"]


def _too_few(engine: Engine, images: Arrays, settings: AdaptationSettings) -> list[str]:
    """List the tasks for which the shares leave no image to adapt to."""
    return [
        f"task {name}: unlabeled_share = {settings.unlabeled_share} and held_out_share = "
        f"{settings.held_out_share} leave none of its {len(images[name])} images; lower the latter"
        for name in engine.task_vectors.task_names
        if not len(split(len(images[name]), settings, (0,))[0])
    ]
