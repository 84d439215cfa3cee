"""An unfinished adaptation in a state file, with a description of its run."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core import state_files
from adamerge_core.adamerging.early_stopping import EarlyStopping
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.optimizer import Optimizer
from adamerge_core.adamerging.precision import PRECISIONS
from adamerge_core.adamerging.targets import Arrays
from adamerge_core.batches import take
from adamerge_core.checkpoints.memory import as_bytes
from adamerge_core.state_files import State, StateFileError
from adamerge_core.task_vectors import TaskVectors, as_rows

_BEST = "best_parameters"

_SAMPLE = 1 << 20
"""Entries of each task vector to hash: few beside the many GB that files may hold."""


def save(
    path: Path,
    run: Mapping[str, Any],
    step: int,
    optimizer: Optimizer,
    stopping: EarlyStopping | None,
    engine: Engine,
) -> None:
    """Write the state after a step: parameters, moments, early stopping, precision, and the run."""
    tensors = dict(optimizer.state())
    facts: dict[str, Any] = {"precision": engine.precision, "early_stopping": None}
    if stopping:
        tensors[_BEST] = stopping.best_parameters
        facts["early_stopping"] = stopping.state()
    state_files.save(path, State(dict(run), step, tensors, facts))


def load(
    path: Path,
    run: Mapping[str, Any],
    optimizer: Optimizer,
    stopping: EarlyStopping | None,
    engine: Engine,
    most: int,
) -> int:
    """Put a saved state into optimizer, early stopping and engine; gives the steps done.

    run: the result of `described` here. most: steps that the run takes. Raises StateFileError when
    the file is damaged or is no state of this run, listing why; then nothing was changed.
    """
    layout = optimizer.layout()
    if stopping:
        layout[_BEST] = layout["parameters"]
    state = state_files.load(path, run, layout, most)
    faults = _faults(state, stopping, engine)
    if faults:
        raise StateFileError.listing(f"state file {path} is no state of this run", faults)
    engine.precision = state.facts["precision"]  # a run that chose one keeps it
    if stopping:
        stopping.restore(state.facts["early_stopping"], state.tensors.pop(_BEST))
    optimizer.restore(state.tensors)
    return state.step


def _faults(state: State, stopping: EarlyStopping | None, engine: Engine) -> list[str]:
    """List what in a state's facts and numbers no run of this one has left, a line each."""
    if set(state.facts) != {"precision", "early_stopping"}:
        return ["must say its precision and its early stopping, nothing else"]
    faults = []
    precision, record = state.facts["precision"], state.facts["early_stopping"]
    if precision not in PRECISIONS:
        faults.append(f"precision = {precision!r}: must be one of {', '.join(PRECISIONS)}")
    elif engine.precision not in ("auto", precision):
        faults.append(f"precision is {precision} in the file, {engine.precision} here")
    if stopping:
        faults += stopping.faults(record, state.step)
    elif record is not None:
        faults.append("has a record of early stopping, and this run has none")
    if state.tensors["step"].item() != state.step:
        faults.append(f"Adam has done {state.tensors['step'].item():g} steps, the run {state.step}")
    if bool((state.tensors["exp_avg_sq"] < 0).any()):
        faults.append("Adam's second moments have negative entries")
    return faults


def described(
    engine: Engine, parameters: Tensor, settings: Mapping[str, Any], targets: Arrays | None
) -> dict[str, Any]:
    """Describe a run as JSON, so that a state file of another run can be told from this one's.

    Task vectors are told apart by the names of all layers and the bits of the smallest ones (see
    _sample), targets by the label of every image, of probabilities the likeliest class: those that
    are computed anew may differ by rounding. Images and heads are not looked into.
    """
    vectors = engine.task_vectors
    labels = (_labels(take(targets[n], slice(None))) for n in vectors.task_names) if targets else ()
    run = {
        **settings,
        **engine.parameterisation.description,
        "shape": list(parameters.shape),
        "task_names": list(vectors.task_names),
        "layers": len(vectors.layers),
        "hash of the task vectors": _hash(vectors.layer_names, _sample(vectors)),
        "hash of the targets": _hash((), labels) if targets else None,
    }
    return dict(json.loads(json.dumps(run)))


def _sample(vectors: TaskVectors) -> Iterator[Tensor]:
    """Go through the layers from the smallest on, up to _SAMPLE entries a task: [K, n] of each."""
    sizes = {name: vectors.pretrained[name].numel() for name in vectors.layers}
    left = _SAMPLE
    for name in sorted(sizes, key=sizes.__getitem__):
        if left > 0:
            yield as_rows(vectors.layers[name])[:, :left]
            left -= sizes[name]


def _labels(targets: Tensor) -> Tensor:
    return targets.argmax(dim=1) if targets.is_floating_point() else targets.long()


def _hash(names: Iterable[str], tensors: Iterable[Tensor]) -> str:
    result = hashlib.blake2b(json.dumps(list(names)).encode(), digest_size=8)
    for tensor in tensors:
        result.update(as_bytes(tensor.cpu().contiguous().view(-1)))
    return result.hexdigest()
