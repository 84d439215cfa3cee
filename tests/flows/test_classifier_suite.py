"""The suite mini_classifiers thinned, through the flow: a classifier with heads of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Project, commit
from small_suite import copy_code

from tasks.graph import paths

STEPS = {"steps": 4, "images_per_task": 4}


def thinned() -> str:
    path = ROOT / "suites/mini_classifiers.yaml"
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw |= {"suite": "thin", "tasks": ["signs", "mnist"]}
    few = {"train": 64, "val": 32, "test": 40}
    raw["datasets"] = {task: {**raw["datasets"][task], **few} for task in raw["tasks"]}
    raw["model"]["name"] = "thin"
    raw["corrupt"] |= {"tasks": ["signs"], "corruptions": ["contrast"], "images": 8}
    raw["finetune"] |= {"steps": 6, "batch_size": 8, "warmup_steps": 1}
    raw["traditional_mtl"]["steps"] = 6
    for entry in raw["methods"].values():
        entry |= STEPS if "adapt" in entry else {}
    raw["evaluate"] |= {"trajectory_images": 8, "trajectory_points": 2}
    adapted = raw["robustness"]["methods"]["layer_wise_adamerging"] | STEPS
    raw["robustness"] |= {"corruptions": ["contrast"], "methods": {"layer_wise": adapted}}
    return yaml.safe_dump(raw, sort_keys=False)


def run(project: Project) -> str:
    """What `adamerge run` says; it takes longer than a project's other commands may."""
    command = [sys.executable, "-m", "flows.cli", "run"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_flow_runs_a_suite_of_classifiers_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    project = copy_code(tmp_path / "project")
    project.write("suites/thin.yaml", thinned())
    assert project.run("flows.cli", "suite", "use", "thin").returncode == 0
    commit(project.root)
    run(project)
    report = project.root / paths.report("thin") / "results.csv"
    rows = {line.split(",")[0] for line in report.read_text().splitlines()[1:]}
    methods = yaml.safe_load(thinned())["methods"]
    assert rows == {"pretrained", "individual", "traditional_mtl", *methods}
    assert ", 0 to bring up to date" in run(project)
