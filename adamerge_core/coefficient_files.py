"""Learned merging coefficients on disk, with the names of their layers and tasks."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.errors import InputError


@dataclass(frozen=True)
class Coefficients:
    """Merging coefficients of one merged model; in [0, 1] where adaptation clamped them."""

    values: Tensor
    """[L, K] float64: a row a layer, a column a task. Task-wise ones repeat one row."""
    layer_names: tuple[str, ...]
    task_names: tuple[str, ...]

    def save(self, path: Path) -> None:
        # one entry: safetensors writes several in an order that changes from process to process
        names = json.dumps({"layers": self.layer_names, "tasks": self.task_names})
        checkpoints.save(path, {"coefficients": self.values}, {"names": names})

    @classmethod
    def load(cls, path: Path) -> "Coefficients":
        """Raises InputError when the file is missing, broken or of another kind."""
        values = checkpoints.load(path).get("coefficients")
        metadata = checkpoints.read_metadata(path)
        if values is None or "names" not in metadata:
            raise InputError(
                f"{path}: holds no merging coefficients; give a file that Coefficients.save wrote"
            )
        names = json.loads(metadata["names"])
        return cls(values, tuple(names["layers"]), tuple(names["tasks"]))
