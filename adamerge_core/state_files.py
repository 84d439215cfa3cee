"""State files: unfinished runs on disk, with a checksum and a description of the run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.checkpoints.memory import as_bytes
from adamerge_core.checkpoints.tensor_files import CODES, TensorFile
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import seal


class StateFileError(InputError):
    """A state file that cannot be gone on from: damaged, of another kind, or of another run."""


@dataclass(frozen=True)
class State:
    """What a run keeps, to go on from."""

    run: dict[str, Any]
    """Describes the run, as JSON: a file is taken by a run of the same description alone."""
    step: int
    """Steps done, from 1."""
    tensors: dict[str, Tensor]
    """On the CPU, finite where they are of floating point."""
    facts: dict[str, Any]
    """What else the run keeps, as JSON, by name."""


def save(path: str | os.PathLike[str], state: State) -> None:
    """Write a state with its checksum, whole or not at all."""
    content = {"run": state.run, "step": state.step, "facts": state.facts}
    tensors = {n: t.detach().cpu().contiguous() for n, t in state.tensors.items()}
    parts = [
        (name, CODES[tensor.dtype], tuple(tensor.shape), as_bytes(tensor.view(-1)))
        for name, tensor in tensors.items()
    ]
    checkpoints.save(path, tensors, seal(content, parts))


def read(path: str | os.PathLike[str]) -> State:
    """Read the state that some run kept.

    Raises StateFileError when the file is missing, damaged (its checksum tells) or of another kind.
    """
    try:
        file = TensorFile(path, "state file")
        content = file.file.sealed_content()
    except InputError as error:
        raise StateFileError(str(error)) from error
    kinds = {"run": dict, "step": int, "facts": dict}
    if (
        not isinstance(content, dict)
        or content.keys() != kinds.keys()
        or any(type(content[name]) is not kind for name, kind in kinds.items())
    ):
        raise StateFileError(f"state file {path}: holds no state of a run; delete the file")
    return State(content["run"], content["step"], dict(file), content["facts"])


def load(
    path: str | os.PathLike[str],
    run: Mapping[str, Any],
    layout: Mapping[str, Tensor],
    most: int,
) -> State:
    """Read the state that the run `run` kept.

    layout: by name a tensor of the shape and dtype of each that the state must hold. most: steps
    that it may have done. Raises StateFileError as `read` does, listing the differences when the
    file belongs to another run, and what in it is no state of this one.
    """
    state = read(path)
    _refuse_another_run(path, state.run, run)
    faults = _misfits(layout, state.tensors)
    if not 1 <= state.step <= most:
        faults.append(f"step = {state.step}: must be from 1 to {most}")
    if faults:
        raise StateFileError.listing(f"state file {path} is no state of this run", faults)
    return state


def _refuse_another_run(
    path: str | os.PathLike[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> None:
    ours = dict(json.loads(json.dumps(ours)))
    faults = [
        f"{name} is {_text(theirs.get(name))} in the file, {_text(ours.get(name))} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if faults:
        faults.append("fix: delete the file to begin anew, or give this run a file of its own")
        raise StateFileError.listing(f"state file {path} belongs to another run", faults)


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)[:200]


def _misfits(layout: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    faults = [f"tensor {name} is missing" for name in layout if name not in tensors]
    for name, found in tensors.items():
        if name not in layout:
            faults.append(f"tensor {name} is extra")
            continue
        wanted = layout[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            faults.append(
                f"tensor {name} is {found.dtype} of shape {list(found.shape)}, "
                f"must be {wanted.dtype} of {list(wanted.shape)}"
            )
        elif found.is_floating_point() and not checkpoints.all_finite(found):
            faults.append(f"tensor {name} has values that are not finite")
    return faults
