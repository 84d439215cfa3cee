"""The folder of a registered model: an MLmodel file without weights and without a pickle."""

import base64
import importlib.metadata
import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import (
    AnyType,
    Array,
    ColSpec,
    DataType,
    ParamSchema,
    ParamSpec,
    Schema,
    TensorSpec,
)
from PIL import Image

from adamerge_core.errors import InputError
from adamerge_core.vision.images import open_images
from tasks.graph import paths
from tasks.tracking.registry.model_record import ModelRecord

_LOADER = "tasks.tracking.registry.loader"

_NEEDED = (
    *("mlflow", "torch", "torchvision", "open_clip_torch", "timm", "safetensors"),
    *("numpy", "pandas", "pillow", "pydantic", "platformdirs"),
)
"""Packages that a loaded model needs beside adamerge itself, which no registry has."""


def write_model(folder: Path, record: ModelRecord, model_id: str, run_id: str | None) -> None:
    """Write an MLmodel folder of a few kilobytes: signature, example, and where the weights are."""
    with warnings.catch_warnings():
        for said in _OF_MLFLOW:
            warnings.filterwarnings("ignore", said)
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            folder,
            loader_module=_LOADER,
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            signature=_signature(),
            input_example=_example(record),
            pip_requirements=list(_requirements(_NEEDED)),
            metadata={"classes": {task: list(h.classes) for task, h in record.heads.items()}},
        )
    record.write(folder)


_OF_MLFLOW = (
    ".*Any type hint is inferred as AnyType",  # of its own types, at its import
    "Operation with range is deprecated",  # of its look at an example's columns, by pandas 3
)
"""Warnings about MLflow's own code."""


def _signature() -> ModelSignature:
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(AnyType(), "image"),  # an array, bytes, base64 text or a path
        ColSpec(DataType.string, "task", required=False),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Array(DataType.double), "probabilities"),
        ColSpec(DataType.double, "entropy"),
    ]
    params = [ParamSpec("task", DataType.string, None)]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def _example(record: ModelRecord) -> pd.DataFrame:
    """Take the first test image of the first task, where it is there, as a small JPEG in base64."""
    task, size = next(iter(record.heads)), record.image_size
    try:
        pixels = np.asarray(open_images(paths.images(task, size, "test"))[0])
    except InputError:  # as where only the models were pulled
        pixels = np.full((size, size, 3), 128, np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    encoded = base64.b64encode(content.getvalue()).decode()
    return pd.DataFrame({"image": [encoded], "task": [task]})


def _requirements(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        version = importlib.metadata.version(name).partition("+")[0]  # torch says its CUDA there
        yield f"{name}=={version}"
