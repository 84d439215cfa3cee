"""Every experiment through the flow: on a suite of the paper's setting, and over kills."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import commit
from field_project import field_project
from small_experiments import write_small_experiments
from small_suite import copy_code, small_suite
from test_kill import assert_same_and_clean, run_with_kills, start

from tasks.graph import paths
from tasks.suite.experiments.sections import EXPERIMENTS

pytestmark = pytest.mark.slow

SMALLEST = "clip-vit-b-32-8-finetune"
TASKS = ("letters", "mnist", "signs")
FIRST = TASKS[0]
CONDITIONS = {
    "missing": {"kind": "missing_classes", "share": 0.5},
    "noise": {"kind": "corrupted", "corruption": "gaussian_noise", "severity": 3},
    "wrong": {"kind": "wrong_expert", "task": FIRST, "expert_of": TASKS[1]},
    "order": {"kind": "order", "order": "task_after_task"},
}


@pytest.mark.timeout(3600)
def test_every_experiment_on_the_smallest_suite_of_the_paper(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with field_project(tmp_path_factory.mktemp("field")) as field:
        write_small_experiments(field.project, SMALLEST, {})
        field.bring_in(SMALLEST)
        said = field.run("flows.cli", "experiment", "run", *EXPERIMENTS)
        assert " failed" not in said
        assert "Data and pipelines are up to date." in field.run("dvc", "repro")
        report = field.project.root / paths.report(SMALLEST)
        index = (report / "index.html").read_text(encoding="utf-8")
        for name in EXPERIMENTS:
            assert f'<a href="{name}.html"' in index
            page = (report / f"{name}.html").read_text(encoding="utf-8")
            assert f"adamerge experiment run {name} --suite {SMALLEST}" in page
            assert (report / f"{name}.csv").stat().st_size > 0


@pytest.mark.timeout(3600)
def test_experiments_survive_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but cost, which measures times."""
    raw = yaml.safe_load(small_suite())
    counts = {"pretrain": 44, "train": 64, "val": 32, "test": 40}
    raw["datasets"]["signs"] = raw["datasets"]["mnist"] | counts
    raw["tasks"] = raw["pretrain"]["datasets"] = list(TASKS)
    raw["corrupt"]["tasks"] = list(TASKS[:2])
    changes = {
        "unseen": {"splits": {"one": [FIRST]}, "pairs": False},
        "deployment": {"conditions": CONDITIONS},
    }
    projects = []
    for name in ("undisturbed", "killed"):
        project = copy_code(tmp_path / name / "small")
        project.write("suites/small.yaml", yaml.safe_dump(raw, sort_keys=False))
        write_small_experiments(project, "mini", changes)
        commit(project.root)
        projects.append(project)
    undisturbed, killed = projects
    names = [name for name in EXPERIMENTS if name != "cost"]
    command = ["-m", "flows.cli", "experiment", "run", *names]
    for project in projects:
        monkeypatch.setenv("PYTHONPATH", str(project.root))
        done = project.run("flows.cli", "suite", "use", "small")
        assert done.returncode == 0, done.stderr
        if project is undisturbed:
            assert start(project, command).wait(timeout=1800) == 0
        else:
            run_with_kills(project, command, (20.0, 60.0))
    assert_same_and_clean(killed, undisturbed)
