"""How MLflow loads a registered model: the `loader_module` of its MLmodel file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from adamerge_core.errors import InputError
from adamerge_core.vision.predictions import MultiTaskModel, predict
from tasks.tracking.registry.model_record import open_model

_SERVED_MODEL = "__pyfunc_model_path__"
"""A variable that MLflow's scoring server has in its environment, and nothing else."""


class LoadedModel:
    """A registered model, as mlflow.pyfunc calls it."""

    def __init__(self, model: MultiTaskModel, *, paths: bool) -> None:
        """paths: whether an image may be a path."""
        self._model, self._paths = model, paths

    def get_raw_model(self) -> MultiTaskModel:
        """Give the torch module: images uint8 [N, H, W, 3] and a task -> logits [N, classes]."""
        return self._model

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Classify the images of a column `image`, each among the classes of its task.

        The task is in a column `task`, else in params["task"]. Gives the columns class,
        probability, probabilities (of all classes of the task, in their order) and entropy (nats).
        Raises InputError listing the faults of all rows.
        """
        if not isinstance(frame, pd.DataFrame) or "image" not in frame.columns:
            raise InputError(
                "the input must be a table with a column image, and a column task where the "
                "images are not all of params['task']"
            )
        named = (params or {}).get("task")
        tasks = list(frame["task"]) if "task" in frame.columns else [None] * len(frame)
        tasks = [named if task is None or task is pd.NA or task != task else task for task in tasks]
        found = predict(self._model, list(frame["image"]), tasks, paths=self._paths)
        columns = {
            "class": [each.class_name for each in found],
            "probability": [each.probability for each in found],
            "probabilities": [list(each.probabilities) for each in found],
            "entropy": [each.entropy for each in found],
        }
        return pd.DataFrame(columns, index=frame.index)


def _load_pyfunc(path: str) -> LoadedModel:
    """Load the model in a folder; MLflow calls this. A server reads no paths for whoever asks."""
    return LoadedModel(open_model(Path(path)), paths=_SERVED_MODEL not in os.environ)
