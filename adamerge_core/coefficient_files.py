"""Learned merging coefficients on disk. Nothing here imports torch until it makes a tensor."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import SafetensorsFile, seal
from adamerge_core.tensor_names import name_faults

if TYPE_CHECKING:
    from torch import Tensor

_SUBJECT = "file of merging coefficients"


@dataclass(frozen=True)
class LearnedCoefficients:
    """The merging coefficients of one merged model, with the names of their layers and tasks."""

    values: "Tensor"
    """[L, K] float64, finite: a row a layer, a column a task; in [0, 1] where adaptation clamped
    them. Task-wise coefficients repeat one row."""
    layer_names: tuple[str, ...]
    """[L], in the order of the rows."""
    task_names: tuple[str, ...]
    """[K], in the order of the columns."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the coefficients, their names and a checksum to a safetensors file, whole or not.

        Raises InputError listing what breaks a rule of the fields.
        """
        values = np.ascontiguousarray(self.values.detach().cpu().numpy())
        names = {"layers": list(self.layer_names), "tasks": list(self.task_names)}
        faults = _faults(values, names)
        if faults:
            raise InputError.listing(f"{_SUBJECT} {path} was not written", faults)
        metadata = seal(names, [("coefficients", "F64", values.shape, values.reshape(-1).data)])
        with atomic_write(path) as temporary:
            save_file({"coefficients": values}, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LearnedCoefficients":
        """Read a file that `save` wrote. Raises InputError as read_arrays does."""
        import torch

        values, layer_names, task_names = read_arrays(path)
        return cls(torch.from_numpy(values), layer_names, task_names)


def read_arrays(
    path: str | os.PathLike[str],
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Read the values [L, K] float64, layer names [L] and task names [K] of saved coefficients.

    Raises InputError when the file is missing, damaged (its checksum tells) or of another kind.
    """
    file = SafetensorsFile(path, _SUBJECT)
    names = file.sealed_content()
    if set(file.entries) != {"coefficients"} or file.entries["coefficients"].code != "F64":
        raise InputError(
            f"{_SUBJECT} {path}: holds no merging coefficients; give a file that "
            "LearnedCoefficients.save wrote"
        )
    entry = file.entries["coefficients"]
    values = np.empty(entry.shape)
    if values.size:
        file.read_into(values.reshape(-1).data.cast("B"), entry.start)
    faults = _faults(values, names)
    if faults:
        raise InputError.listing(f"{_SUBJECT} {path}", faults)
    return values, tuple(names["layers"]), tuple(names["tasks"])


def _faults(values: np.ndarray, names: Any) -> list[str]:
    """List what keeps values and names from being coefficients, a line each."""
    if not isinstance(names, dict) or set(names) != {"layers", "tasks"}:
        return ["names must be a list of layers and one of tasks"]
    faults = []
    for kind, given in names.items():
        if not isinstance(given, list):
            return [f"the {kind} must be a list of names"]
        found = name_faults(given)
        faults += [f"{kind}: {fault}" for fault in found]
    shape = (len(names["layers"]), len(names["tasks"]))
    if values.shape != shape:
        faults.append(
            f"coefficients of shape {list(values.shape)}: {shape[0]} layers and {shape[1]} tasks "
            f"need {list(shape)}"
        )
    if values.dtype != np.float64:
        faults.append(f"coefficients are {values.dtype}: must be float64")
    elif not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        faults.append(f"{count} coefficients are not finite; every one must be")
    return faults
