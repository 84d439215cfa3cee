"""Learned merging coefficients on disk. Nothing here imports torch until it makes a tensor."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import open_safetensors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LearnedCoefficients:
    """The merging coefficients of one merged model, with the names of their layers and tasks."""

    values: "Tensor"
    """[L, K] float64: a row a layer, a column a task; in [0, 1] where adaptation clamped them.
    Task-wise coefficients repeat one row."""
    layer_names: tuple[str, ...]
    """[L], in the order of the rows."""
    task_names: tuple[str, ...]
    """[K], in the order of the columns."""

    def save(self, path: Path) -> None:
        """Write the coefficients and their names to a safetensors file, whole or not at all."""
        # one entry: safetensors writes several in an order that changes from process to process
        names = json.dumps({"layers": self.layer_names, "tasks": self.task_names})
        values = np.ascontiguousarray(self.values.detach().cpu().numpy())
        with atomic_write(path) as temporary:
            save_file({"coefficients": values}, temporary, metadata={"names": names})

    @classmethod
    def load(cls, path: Path) -> "LearnedCoefficients":
        """Read a file that `save` wrote. Raises InputError as read_arrays does."""
        import torch

        values, layer_names, task_names = read_arrays(path)
        return cls(torch.from_numpy(values), layer_names, task_names)


def read_arrays(path: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Read the values [L, K], layer names [L] and task names [K] of saved coefficients.

    Raises InputError when the file is missing, broken or of another kind.
    """
    with open_safetensors(path, "np") as file:
        names = (file.metadata() or {}).get("names")
        if names is None or "coefficients" not in file.keys():  # noqa: SIM118
            raise InputError(
                f"{path}: holds no merging coefficients; give a file that LearnedCoefficients.save "
                "wrote"
            )
        found = json.loads(names)
        return file.get_tensor("coefficients"), tuple(found["layers"]), tuple(found["tasks"])
