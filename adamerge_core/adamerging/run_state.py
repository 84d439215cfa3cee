"""State files: an unfinished adaptation on disk, with a description of its run."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging.early_stopping import EarlyStopping
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.optimizer import Optimizer
from adamerge_core.adamerging.targets import Arrays
from adamerge_core.batches import take
from adamerge_core.errors import InputError
from adamerge_core.storage import as_bytes
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
    content = {"run": run, "step": step, "precision": engine.precision, "early_stopping": None}
    if stopping:
        tensors[_BEST] = stopping.best_parameters
        content["early_stopping"] = stopping.state()
    # one entry: safetensors writes several in an order that changes from process to process
    checkpoints.save(path, tensors, {"state": json.dumps(content)})


def load(
    path: Path,
    run: Mapping[str, Any],
    optimizer: Optimizer,
    stopping: EarlyStopping | None,
    engine: Engine,
) -> int:
    """Put a saved state into optimizer, early stopping and engine; gives the steps done.

    run: the result of `described` here. Raises InputError listing the differences when the file
    belongs to another run.
    """
    tensors = checkpoints.load(path)
    content = _content(path)
    faults = [
        f"{name} is {_text(content['run'].get(name))} in the file, {_text(run.get(name))} here"
        for name in sorted(content["run"].keys() | run.keys())
        if content["run"].get(name) != run.get(name)
    ]
    if engine.precision not in ("auto", content["precision"]):
        faults.append(f"precision is {content['precision']} in the file, {engine.precision} here")
    if faults:
        faults.append("fix: delete the file to begin anew, or give this run a file of its own")
        raise InputError.listing(f"state file {path} belongs to another run", faults)
    engine.precision = content["precision"]  # a run that chose one keeps it
    if stopping:
        stopping.restore(content["early_stopping"], tensors.pop(_BEST))
    optimizer.restore(tensors)
    return int(content["step"])


def _content(path: Path) -> dict[str, Any]:
    text = checkpoints.read_metadata(path).get("state")
    if text is None:
        raise InputError(f"state file {path}: no state of an adaptation; delete the file")
    return dict(json.loads(text))


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


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)
