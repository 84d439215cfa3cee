"""CONTRIBUTING.md's recipes, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("adamerge_core", "tasks", "flows", "suites", "params.yaml", "dvc.yaml", "pyproject.toml")


def section(title: str) -> str:
    """One recipe."""
    (found,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def files(recipe: str) -> dict[str, str]:
    """The files that a recipe shows, whole, by path."""
    return dict(re.findall(r"^`([\w/.]+)`:\n\n```python\n(.*?)```", recipe, re.M | re.S))


def suite_lines(recipe: str) -> dict[str, Any]:
    """What a recipe adds to a suite, by section."""
    (block,) = re.findall(r"```yaml\n(.*?)```", recipe, re.DOTALL)
    return dict(yaml.safe_load(block))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's code and suites."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path)
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    """What Python prints there, with the copy's code."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def follow(folder: Path, title: str) -> list[str]:
    """Write the files of a recipe, none of which may be there yet; their paths."""
    shown = files(section(title))
    for path, text in shown.items():
        assert not (folder / path).exists(), path
        (folder / path).write_text(text, encoding="utf-8")
    return list(shown)


def change(folder: Path, path: str, recipe: str) -> None:
    """Apply the lines of a recipe's diff to a file: each removed line becomes those added after."""
    (block,) = re.findall(r"```diff\n(.*?)```", recipe, re.DOTALL)
    text = (folder / path).read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*\n)((?:\+.*\n)+)", block, re.MULTILINE):
        assert text.count(old) == 1, old
        text = text.replace(old, re.sub(r"^\+", "", new, flags=re.MULTILINE))
    (folder / path).write_text(text, encoding="utf-8")


def use(folder: Path, added: dict[str, Any]) -> dict[str, Any]:
    """Add entries to mini's sections and make it the active suite; the stages of dvc.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, entries in added.items():
        params[name] = {**params[name], **entries} if isinstance(entries, dict) else entries
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    python(folder, "-m", "flows.cli", "suite", "use")
    return stages(folder)


def stages(folder: Path) -> dict[str, Any]:
    """Name -> {deps, params, files} of every stage of the copy's dvc.yaml."""
    script = (
        "import json; from tasks.graph import dvc_yaml\n"
        "print(json.dumps({n: [s.deps, s.params, s.files] for n, s in dvc_yaml.read().items()}))"
    )
    return dict(json.loads(python(folder, "-c", script)))


def test_a_merge_rule(copy: Path) -> None:
    before = stages(copy)
    (rule,) = follow(copy, "A merge rule")
    after = use(copy, suite_lines(section("A merge rule")))
    rows = ("median", "median_chosen")
    own = {f"merge_{row}@mini-0" for row in rows} | {f"evaluate@mini-{row}-0" for row in rows}
    assert after.keys() - before.keys() == own
    assert {name for name, (deps, *_) in after.items() if rule in deps} == {
        f"merge_{row}@mini-0" for row in rows
    }
    unchanged = before.keys() - {"report@mini"}
    assert {name for name in unchanged if before[name] != after[name]} == set()
    shown = python(copy, "-m", "flows.cli", "methods", "median_merging")
    assert "the median of the task vectors" in shown
    script = (
        "import torch\n"
        "from adamerge_core import RULES, TaskVectors\n"
        "pre = {'w': torch.zeros(2)}\n"
        "models = {str(i): {'w': torch.tensor([float(i), 1.0])} for i in range(3)}\n"
        "vectors = TaskVectors.from_checkpoints(pre, models)\n"
        "print(RULES['median_merging'](vectors, scaling=2.0)['w'].tolist())"
    )
    assert python(copy, "-c", script) == "[2.0, 2.0]\n"


def test_a_data_source(copy: Path) -> None:
    before = stages(copy)
    (kind,) = follow(copy, "A data source")
    tasks = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))["tasks"]
    added = suite_lines(section("A data source")) | {"tasks": [*tasks, "moons"]}
    after = use(copy, added)
    assert {kind, "moons.npz"} <= set(after["download_moons"][0])
    assert [name for name, (deps, *_) in after.items() if kind in deps] == ["download_moons"]
    data = ("download", "prepare", "corrupt", "pretrain", "finetune", "task_vectors")
    old = [name for name in before if name.startswith(data)]
    assert {name: after[name] for name in old} == {name: before[name] for name in old}
    script = (
        "import numpy as np\n"
        "from tasks import download, prepare\n"
        "from tasks.graph import paths\n"
        "from tasks.running.work import Work\n"
        "rng, arrays = np.random.default_rng(0), {}\n"
        "for split in ('train', 'val', 'test'):\n"
        "    arrays[f'{split}_images'] = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)\n"
        "    arrays[f'{split}_labels'] = np.array([0, 1, 1, 0])\n"
        "np.savez('moons.npz', **arrays)\n"
        f"params = {{'datasets': {added['datasets']!r}, 'prepare': {{'unreadable': 'fail'}}}}\n"
        "for path in (paths.raw('moons'), paths.images('moons', 8, 'test')):\n"
        "    path.parent.mkdir(parents=True)\n"
        "options = {'dataset': 'moons', 'size': '8'}\n"
        "download.run(Work('', options, params))\n"
        "prepare.run(Work('', options, params))\n"
        "found = np.load(paths.images('moons', 8, 'test'))\n"
        "labels = np.load(paths.labels('moons', 8, 'test'))\n"
        "print((found == arrays['test_images']).all(), labels.tolist())"
    )
    assert python(copy, "-c", script).splitlines()[-1] == "True [0, 1, 1, 0]"


def test_a_stage(copy: Path) -> None:
    before = stages(copy)
    (module,) = follow(copy, "A stage")
    recipe, phase = section("A stage"), "tasks/graph/data.py"
    added = re.findall(r"```python\n(def .*?)```", recipe, re.DOTALL)
    with (copy / phase).open("a", encoding="utf-8") as file:
        file.write("\n\n" + "".join(added))
    change(copy, phase, recipe)
    after = use(copy, {})
    tasks = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))["tasks"]
    assert after.keys() - before.keys() == {f"class_counts@{task}-64" for task in tasks}
    assert {name: after[name] for name in before} == before
    assert module in after["class_counts@photos-64"][0]
    script = (
        "import numpy as np\n"
        "from adamerge_core.vision.images import save_array\n"
        "from tasks.class_counts import run\n"
        "from tasks.graph import paths\n"
        "from tasks.running.work import Work\n"
        "from tasks.shared.tables import write_json\n"
        "labels = paths.labels('photos', 64, 'test')\n"
        "labels.parent.mkdir(parents=True)\n"
        "write_json(paths.classes('photos'), {'classes': ['cat', 'dog', 'elk']})\n"
        "save_array(labels, np.array([0, 2, 2]))\n"
        "run(Work('class_counts@photos-64', {'dataset': 'photos', 'size': '64'}, {}))\n"
        "print((labels.parent / 'class_counts.csv').read_text())"
    )
    assert python(copy, "-c", script).split() == ["class,images", "cat,1", "dog,0", "elk,2"]


def test_an_experiment(copy: Path) -> None:
    before = stages(copy)
    follow(copy, "An experiment")
    change(copy, "tasks/wiring.py", section("An experiment"))
    after = use(copy, {})
    assert after.keys() - before.keys() == {"sign_conflicts@mini-0"}
    assert {name: after[name] for name in before} == before
    script = (
        "import torch\n"
        "from adamerge_core import checkpoints\n"
        "from tasks import task_vectors\n"
        "from tasks.experiments import sign_conflicts\n"
        "from tasks.graph import paths\n"
        "from tasks.running.work import Work\n"
        "paths.pretrained('m').parent.mkdir(parents=True)\n"
        "checkpoints.save(paths.pretrained('m'), {'w': torch.zeros(4)})\n"
        "for task, values in {'a': [1., 1., 1., 1.], 'b': [1., -1., 1., 1.]}.items():\n"
        "    path = paths.finetuned('m', task, 0)\n"
        "    path.parent.mkdir(exist_ok=True)\n"
        "    paths.task_vector('m', task, 0).parent.mkdir(exist_ok=True)\n"
        "    checkpoints.save(path, {'w': torch.tensor(values)})\n"
        "    options = {'model': 'm', 'dataset': task, 'seed': '0'}\n"
        "    task_vectors.run(Work('', options, {'compute': {'threads': 1}}))\n"
        "table = sign_conflicts.conflicts('s', '0')\n"
        "table.parent.mkdir(parents=True)\n"
        "options = {'suite': 's', 'model': 'm', 'seed': '0'}\n"
        "sign_conflicts.run(Work('', options, {'tasks': ['a', 'b']}))\n"
        "print(table.read_text())"
    )
    assert python(copy, "-c", script).split() == ["task,other,percent", "a,b,25"]
