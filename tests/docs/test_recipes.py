"""CONTRIBUTING.md's recipes, followed to the letter in one copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("adamerge_core", "tasks", "flows", "suites", "experiments")
COPIED += ("params.yaml", "dvc.yaml", "pyproject.toml")
RULE, SOURCE, STAGE, EXPERIMENT = "A merge rule", "A data source", "A stage", "An experiment"


@dataclass(frozen=True)
class Copy:
    """A copy of the project, and the stages of mini before and after the recipes."""

    folder: Path
    before: dict[str, Any]
    after: dict[str, Any]
    """Name -> [deps, params, files]."""

    def reached_by(self, path: str) -> set[str]:
        """The stages that depend on a file."""
        return {name for name, (deps, *_) in self.after.items() if path in deps}


def section(title: str) -> str:
    """One recipe."""
    (found,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def files(title: str, language: str = "python") -> dict[str, str]:
    """The texts of the files that a recipe shows whole, by path."""
    shown = rf"^`([\w/.]+)`:\n\n```{language}\n(.*?)```"
    return dict(re.findall(shown, section(title), re.M | re.S))


def file(title: str) -> str:
    """The path of the first module that a recipe shows whole."""
    return next(iter(files(title)))


def entries(title: str) -> dict[str, Any]:
    """What a recipe adds to a suite, by section."""
    (block,) = re.findall(r"```yaml\n(.*?)```", section(title), re.DOTALL)
    return dict(yaml.safe_load(block))


def python(folder: Path, *arguments: str) -> str:
    """What Python prints there, with the copy's code."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stages(folder: Path) -> dict[str, Any]:
    script = (
        "import json; from tasks.graph import dvc_yaml\n"
        "print(json.dumps({n: [s.deps, s.params, s.files] for n, s in dvc_yaml.read().items()}))"
    )
    return dict(json.loads(python(folder, "-c", script)))


def change(path: Path, title: str, number: int = 0) -> None:
    """Apply the lines of a recipe's diff, its first or that of another number, to a file: each
    removed line becomes those added after.
    """
    block = re.findall(r"```diff\n(.*?)```", section(title), re.DOTALL)[number]
    text = path.read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*\n)((?:\+.*\n)+)", block, re.MULTILINE):
        assert text.count(old) == 1, old
        text = text.replace(old, re.sub(r"^\+", "", new, flags=re.MULTILINE))
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The project after all recipes; their stages are in dvc.yaml."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    before = stages(folder)
    for title in (RULE, SOURCE, STAGE, EXPERIMENT):
        for path, text in (files(title) | files(title, "yaml")).items():
            assert not (folder / path).exists(), path
            (folder / path).write_text(text, encoding="utf-8")
    with (folder / "tasks/graph/data.py").open("a", encoding="utf-8") as phase:
        phase.write("\n\n" + re.findall(r"```python\n(def .*?)```", section(STAGE), re.DOTALL)[0])
    change(folder / "tasks/graph/data.py", STAGE)
    change(folder / "tasks/suite/experiments/sections.py", EXPERIMENT)
    change(folder / "tasks/experiments/registry.py", EXPERIMENT, 1)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for added in (entries(RULE), entries(SOURCE)):
        for name, more in added.items():
            params[name] |= more
    params["experiments"] = {"sign_conflicts": yaml.safe_load(*files(EXPERIMENT, "yaml").values())}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    python(folder, "-m", "flows.cli", "suite", "use")
    return Copy(folder, before, stages(folder))


def test_recipes_leave_other_stages_as_they_are(copy: Copy) -> None:
    """All but the report, which shows the new rows."""
    old = copy.before.keys() - {"report@mini"}
    assert {name for name in old if copy.before[name] != copy.after[name]} == set()


def test_a_merge_rule(copy: Copy) -> None:
    path = file(RULE)
    rows = entries(RULE)["methods"]
    assert copy.reached_by(path) == {f"merge_{row}@mini-0" for row in rows}
    assert {f"evaluate@mini-{row}-0" for row in rows} <= copy.after.keys() - copy.before.keys()
    shown = python(copy.folder, "-m", "flows.cli", "methods", "median_merging")
    assert "the median of the task vectors" in shown
    script = """
import torch
from adamerge_core import RULES, TaskVectors
models = {str(i): {"w": torch.tensor([float(i), 1.0])} for i in range(3)}
vectors = TaskVectors.from_checkpoints({"w": torch.zeros(2)}, models)
print(RULES["median_merging"](vectors, scaling=2.0)["w"].tolist())
"""
    assert python(copy.folder, "-c", script) == "[2.0, 2.0]\n"


def test_a_data_source(copy: Copy) -> None:
    path = file(SOURCE)
    assert copy.reached_by(path) == copy.reached_by("moons.npz") == {"download_moons"}
    assert "prepare@moons-64" in copy.after
    script = f"""
import numpy as np
from tasks import download, prepare
from tasks.graph import paths
from tasks.running.work import Work
rng, arrays = np.random.default_rng(0), {{}}
for split in ("train", "val", "test"):
    arrays[f"{{split}}_images"] = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    arrays[f"{{split}}_labels"] = np.array([0, 1, 1, 0])
np.savez("moons.npz", **arrays)
params = {{"datasets": {entries(SOURCE)["datasets"]!r}, "prepare": {{"unreadable": "fail"}}}}
for path in (paths.raw("moons"), paths.images("moons", 8, "test")):
    path.parent.mkdir(parents=True)
options = {{"dataset": "moons", "size": "8", "splits": "train-val-test"}}
download.run(Work("", options, params))
prepare.run(Work("", options, params))
found = np.load(paths.images("moons", 8, "test"))
print((found == arrays["test_images"]).all(), np.load(paths.labels("moons", 8, "test")).tolist())
"""
    assert python(copy.folder, "-c", script).splitlines()[-1] == "True [0, 1, 1, 0]"


def test_a_stage(copy: Copy) -> None:
    path = file(STAGE)
    tasks = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["tasks"]
    assert copy.reached_by(path) == {f"class_counts@{task}-64" for task in tasks}
    script = """
import numpy as np
from adamerge_core.vision.images import save_array
from tasks.class_counts import run
from tasks.graph import paths
from tasks.running.work import Work
from tasks.shared.tables import write_json
labels = paths.labels("photos", 64, "test")
labels.parent.mkdir(parents=True)
write_json(paths.classes("photos"), {"classes": ["cat", "dog", "elk"]})
save_array(labels, np.array([0, 2, 2]))
run(Work("class_counts@photos-64", {"dataset": "photos", "size": "64"}, {}))
print((labels.parent / "class_counts.csv").read_text())
"""
    found = python(copy.folder, "-c", script).split()
    assert found == ["class,images", "cat,1", "dog,0", "elk,2"]


def test_an_experiment(copy: Copy) -> None:
    path = file(EXPERIMENT)
    assert copy.reached_by(path) == {"sign_conflicts@mini-0"}
    script = """
import torch
from adamerge_core import checkpoints
from tasks import task_vectors
from tasks.experiments import sign_conflicts
from tasks.graph import paths
from tasks.running.work import Work
table = sign_conflicts.conflicts("s", "0")
files = paths.finetuned("m", "a", "0"), paths.task_vector("m", "a", "0")
for path in (paths.pretrained("m"), table, *files):
    path.parent.mkdir(parents=True, exist_ok=True)
checkpoints.save(paths.pretrained("m"), {"w": torch.zeros(4)})
for task, values in {"a": [1.0, 1, 1, 1], "b": [1.0, -1, 1, 1]}.items():
    checkpoints.save(paths.finetuned("m", task, "0"), {"w": torch.tensor(values)})
    options = {"model": "m", "dataset": task, "seed": "0"}
    task_vectors.run(Work("", options, {"compute": {"threads": 1}}))
options = {"suite": "s", "model": "m", "seed": "0"}
settings = {"sign_conflicts": {"tasks": ["a", "b"]}}
sign_conflicts.run(Work("", options, {"experiments": settings}))
print(table.read_text())
"""
    assert python(copy.folder, "-c", script).split()[-2:] == ["task,other,percent", "a,b,25"]
