"""The state of an unfinished adaptation on disk, with the name of the run that it belongs to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging.early_stopping import EarlyStopping
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.optimizer import Optimizer
from adamerge_core.errors import InputError

_BEST = "best_parameters"


def save(
    path: Path,
    run: Mapping[str, Any],
    step: int,
    optimizer: Optimizer,
    stopping: EarlyStopping | None,
    engine: Engine,
) -> None:
    """Write what the run needs to go on after step `step`."""
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
    """Take up a saved state; the number of steps done.

    Raises InputError that says what differs when the file belongs to another run.
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


def described(engine: Engine, parameters: Tensor, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a state belongs to, beside seed and images, as JSON reads it back."""
    vectors = engine.task_vectors
    run = {
        **settings,
        **engine.parameterisation.description,
        "shape": list(parameters.shape),
        "task_names": list(vectors.task_names),
        "layers": len(vectors.layers),
    }
    return dict(json.loads(json.dumps(run)))


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)
