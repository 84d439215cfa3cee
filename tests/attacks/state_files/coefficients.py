"""Coefficient files with a right checksum over a wrong content."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks

from adamerge_core import checkpoints
from adamerge_core.coefficient_files import LearnedCoefficients, read_arrays
from adamerge_core.safetensors_files import seal
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.state_files.models import coefficients


def cases() -> Iterator[Case]:
    values = np.linspace(0, 1, 6).reshape(2, 3)
    names = {"layers": ["a", "b"], "tasks": ["x", "y", "z"]}
    wrong: dict[str, tuple[np.ndarray, Any]] = {
        "NaN": (np.full((2, 3), np.nan), names),
        "infinity": (np.full((2, 3), np.inf), names),
        "float32": (values.astype(np.float32), names),
        "whole numbers": (values.astype(np.int64), names),
        "another shape": (values.T.copy(), names),
        "one dimension": (values.reshape(-1), names),
        "three dimensions": (values.reshape(2, 3, 1), names),
        "a layer less": (values, {**names, "layers": ["a"]}),
        "a task more": (values, {**names, "tasks": ["x", "y", "z", "w"]}),
        "a layer twice": (values, {**names, "layers": ["a", "a"]}),
        "a task twice": (values, {**names, "tasks": ["x", "y", "y"]}),
        "layers as numbers": (values, {**names, "layers": [1, 2]}),
        "layers as text": (values, {**names, "layers": "ab"}),
        "layers null": (values, {**names, "layers": None}),
        "no tasks": (values, {"layers": ["a", "b"]}),
        "more names": (values, {**names, "more": []}),
        "names as a list": (values, [["a", "b"], ["x", "y", "z"]]),
        "names null": (values, None),
    }
    codes = {"float64": "F64", "float32": "F32", "int64": "I64"}
    for name, (given, texts) in wrong.items():

        def run(folder: Path, given: np.ndarray = given, texts: Any = texts) -> None:
            path = folder / "c.safetensors"
            parts = [("coefficients", codes[str(given.dtype)], given.shape, given.tobytes())]
            tensors = {"coefficients": torch.from_numpy(given)}
            checkpoints.save(path, tensors, seal(texts, parts))
            refused(lambda: LearnedCoefficients.load(path), str(path))

        yield Case(f"coefficients in a file: {name}", run)

        def save(folder: Path, given: np.ndarray = given, texts: Any = texts) -> None:
            if not isinstance(texts, dict) or set(texts) != {"layers", "tasks"}:
                return
            if not all(isinstance(each, list) for each in texts.values()):
                return
            learned = LearnedCoefficients(
                torch.from_numpy(given), tuple(texts["layers"]), tuple(texts["tasks"])
            )
            refused(lambda: learned.save(folder / "c.safetensors"), "not written")
            if list(folder.iterdir()):
                raise FaultError("left a file")

        yield Case(f"coefficients to be written: {name}", save)

    def extra(folder: Path) -> None:
        path = folder / "c.safetensors"
        ones = np.ones((2, 3))
        parts = [(n, "F64", ones.shape, ones.tobytes()) for n in ("coefficients", "more")]
        tensors = {n: torch.from_numpy(ones) for n in ("coefficients", "more")}
        checkpoints.save(path, tensors, seal(names, parts))
        refused(lambda: read_arrays(path), "no merging coefficients")

    yield Case("coefficients in a file: a tensor more", extra)

    def good(folder: Path) -> None:
        coefficients().save(folder / "c")
        found = LearnedCoefficients.load(str(folder / "c"))
        if not torch.equal(found.values, coefficients().values):
            raise FaultError("other values")

    yield Case("coefficients in a file, by a path as text", good)
