"""What an import brings in, each in a process of its own."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import adamerge_core

FORBIDDEN = {
    "core": ("prefect", "dvc", "mlflow", "open_clip", "torchvision", "timm", "albumentations"),
    "stages": ("torch", "mlflow", "dvc", "prefect", "open_clip", "torchvision", "timm"),
    "images": ("torch", "open_clip", "torchvision", "timm", "prefect", "dvc", "mlflow"),
}
IMPORTS = {
    "core": (
        "adamerge_core",
        "adamerge_core.adamerging",
        "adamerge_core.analysis",
        "adamerge_core.batches",
        "adamerge_core.checkpoints",
        "adamerge_core.coefficients",
        "adamerge_core.distributed",
        "adamerge_core.errors",
        "adamerge_core.evaluation",
        "adamerge_core.files",
        "adamerge_core.merging",
        "adamerge_core.statistics",
        "adamerge_core.storage",
        "adamerge_core.task_vectors",
        "adamerge_core.widening",
    ),
    "stages": (
        "tasks.stage",
        "tasks.rules",
        "tasks.suite",
        "tasks.graph",
        "tasks.download",
        "tasks.prepare",
        "flows.methods",
    ),
    "images": ("adamerge_core.vision.images", "adamerge_core.vision.corruptions"),
}


def test_every_module_of_the_core_is_looked_at() -> None:
    names = {module.name for module in pkgutil.iter_modules(adamerge_core.__path__)} - {"vision"}
    assert {f"adamerge_core.{name}" for name in names} == set(IMPORTS["core"]) - {"adamerge_core"}


@pytest.mark.parametrize("part", IMPORTS)
def test_an_import_brings_in_no_more_than_it_needs(part: str) -> None:
    script = (
        f"import sys\nimport {', '.join(IMPORTS[part])}\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "adamerge_core" in loaded
    assert loaded.isdisjoint(FORBIDDEN[part]), loaded & set(FORBIDDEN[part])
