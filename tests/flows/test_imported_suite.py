"""A suite that imports all: data sets and models from a hub, through the flow and `dvc repro`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clip_checkpoints import save_vision_model, tower_of
from conftest import ROOT, Project, commit
from hub_server import Hub, serving, toy, write_entry
from open_clip.model import CLIP
from safetensors.torch import save_file
from small_suite import copy_code
from torch import Tensor

from adamerge_core.merging import BEFORE, RULES
from tasks.graph import paths

TASKS = ("toy", "toy_too")
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 24, "width": 64, "heads": 1, "layers": 1},
}
STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1}
NOT_HERE = {"published_coefficients", "fisher_merging", "regmean"}
"""The first is of other models; the others' statistics want images beside the test images."""


def add_architecture(project: Project) -> None:
    """Make the tiny CLIP one of this project's own, in the project's copy of the code."""
    path = project.root / "adamerge_core/vision/architectures.py"
    scaling = ((127.0,) * 3, (128.0,) * 3)
    path.write_text(
        f'{path.read_text()}\nARCHITECTURES["tiny_vit"] = {TINY!r}\n'
        f'PIXEL_SCALING["tiny_vit"] = {scaling!r}\n'
    )


def add_data_sets(project: Project) -> None:
    """Put two entries into the catalogue that are of one data set of the hub."""
    folder = project.root / "adamerge_core/vision/datasets/catalogue"
    write_entry(folder, 20, 10)
    shutil.copy(folder / "toy.yaml", folder / "toy_too.yaml")


def add_models(project: Project, whole: dict[str, Tensor]) -> list[Hub]:
    """Write the pretrained CLIP, and give the hubs of a fine-tuned model a task."""
    save_file(whole, project.root / "clip.safetensors")
    hubs = []
    for number, task in enumerate(TASKS):
        rng = torch.Generator().manual_seed(number)
        tuned = {n: t + 0.01 * torch.randn(t.shape, generator=rng) for n, t in whole.items()}
        folder = save_vision_model(project.root.parent / task, tower_of(tuned))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hubs.append(Hub(f"org/{task}", files, kind="models"))
    return hubs


def suite() -> str:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    for section in ("pretrain", "finetune", "traditional_mtl"):
        del raw[section]
    raw |= {"suite": "imported", "tasks": list(TASKS)}
    entry = {"source": "hub", "test_only": True, "cache": "cache"}
    raw["datasets"] = {task: {**entry, "dataset": task} for task in TASKS}
    raw["prepare"]["image_size"] = 32
    weights = {"file": "clip.safetensors", "activation": "quick_gelu"}
    raw["model"] = {"name": "imported", "architecture": "tiny_vit", "weights": weights}
    models = {task: {"hub": f"org/{task}", "revision": "main"} for task in TASKS}
    raw["checkpoints"] = {"line": "own", "finetuned": models, "heads": {}}
    rules = {name: {"rule": name} for name in RULES if name not in NOT_HERE}
    adapted = {f"over_{name}": {"adapt": "layer_wise", "before": name, **STEPS} for name in BEFORE}
    raw["methods"] = rules | adapted | {"task_wise": {"adapt": "task_wise", **STEPS}}
    raw["corrupt"] |= {"tasks": ["toy"], "corruptions": ["contrast"], "images": 4}
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    robust = {"task_arithmetic": {"rule": "task_arithmetic"}}
    raw["robustness"] = {"corruptions": ["clean", "contrast"], "severity": 3, "methods": robust}
    return yaml.safe_dump(raw, sort_keys=False)


def run(project: Project, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_is_imported_and_merged_by_the_flow_and_by_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    torch.manual_seed(0)
    whole = {name: tensor.detach() for name, tensor in CLIP(**TINY).state_dict().items()}
    project = copy_code(tmp_path / "flow")
    for add in (add_architecture, add_data_sets):
        add(project)
    models = add_models(project, whole)
    project.write("suites/imported.yaml", suite())
    with serving(toy(), *models) as hub, monkeypatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setenv("HF_ENDPOINT", hub.address)
        run(project, "flows.cli", "data", "pin", "toy")
        run(project, "flows.cli", "data", "pin", "toy_too")
        run(project, "flows.cli", "suite", "use", "imported")
        run(project, "flows.cli", "data", "download")
        assert not [name for name in hub.sent if "train" in name]  # trap 7: the splits used alone
    commit(project.root)
    by_hand = shutil.copytree(project.root, tmp_path / "dvc", symlinks=True)

    said = run(project, "flows.cli", "run")
    report = project.root / paths.report("imported") / "results.csv"
    rows = {line.split(",")[0] for line in report.read_text().splitlines()[1:]}
    methods = yaml.safe_load(suite())["methods"]
    assert rows == {"pretrained", "individual", *methods}
    assert "transductive" in said

    run(Project(by_hand), "dvc", "repro")
    again = by_hand / paths.report("imported") / "results.csv"
    assert again.read_bytes() == report.read_bytes()
