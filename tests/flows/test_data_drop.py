"""Raw files are removed after they are prepared, and fetched again where a stage needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Project, commit
from hub_server import serving, toy
from open_clip.model import CLIP
from small_suite import copy_code
from test_imported_suite import TINY, add_architecture, add_data_sets, add_models, suite

from flows.dvc import internals
from flows.dvc.dropped import without_dropped
from tasks.graph import paths

ARCHIVE = paths.raw("toy")


def test_stages_that_lack_dropped_archives_alone_have_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("dropped", "restorable", "needed")
    archives = {name: paths.raw(name).as_posix() for name in names}
    objects = {archives[name]: Path(name) for name in names}
    monkeypatch.setattr(internals, "cache_objects", lambda wanted: objects)
    objects[archives["restorable"]].touch()

    def lacking(kind: str, name: str) -> dict[str, dict[str, str]]:
        return {
            f"changed {kind}": {archives[name]: "not in cache" if kind == "outs" else "deleted"}
        }

    changes = {
        f"{stage}_{name}": [lacking(kind, name)]
        for name in names
        for stage, kind in (("download", "outs"), ("prepare", "deps"))
    }
    changes["prepare_needed"].append({"changed deps": {"params.yaml": "modified"}})
    changes["heads"] = [{"changed deps": {"data/datasets/dropped/classes.json": "deleted"}}]
    left = without_dropped(changes)
    assert left.keys() == changes.keys() - {"download_dropped", "prepare_dropped"}
    assert without_dropped({"other": ["changed command"]}) == {"other": ["changed command"]}


def told(project: Project, *command: str, code: int = 0) -> str:
    """Run adamerge to its end, of this code, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command],
        cwd=project.root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def with_one_method() -> str:
    raw = yaml.safe_load(suite())
    raw["methods"] = {"task_arithmetic": {"rule": "task_arithmetic"}}
    raw["robustness"]["corruptions"] = ["clean"]
    return yaml.safe_dump(raw, sort_keys=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_dropped_is_not_missed_until_a_stage_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    whole = {name: tensor.detach() for name, tensor in CLIP(**TINY).state_dict().items()}
    project = copy_code(tmp_path / "project")
    for add in (add_architecture, add_data_sets):
        add(project)
    models = add_models(project, whole)
    project.write("suites/imported.yaml", with_one_method())
    commit(project.root)
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving(toy(), *models) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        told(project, "suite", "use", "imported")
        told(project, "data", "download")
        said = told(project, "data", "drop", code=2)
        assert "toy: the stage prepare_test@toy-32 has not read it yet; adamerge run" in said
        assert "x: is none of datasets" in told(project, "data", "drop", "x", code=2)
        told(project, "run")
        cached = set((project.root / ".dvc/cache/files").rglob("*"))

        said = told(project, "data", "drop")
        assert "toy: " in said
        assert "removing " in said
        assert not (project.root / ARCHIVE).exists()
        assert len(cached - set((project.root / ".dvc/cache/files").rglob("*"))) >= 1
        blobs = (project.root / "cache/datasets--toys--toy").rglob("*")
        assert [path for path in blobs if path.is_file()] == []
        sent = hub.sent.copy()
        assert ", 0 to bring up to date" in told(project, "run")
        assert not (project.root / ARCHIVE).exists()
        subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--allow-missing"], cwd=project.root, check=True
        )

        project.replace("params.yaml", "unreadable: fail", "unreadable: skip")
        assert "fetch it: adamerge data download toy" in told(project, "run", code=1)
        assert hub.sent == sent
        told(project, "data", "download")
        told(project, "run")
        assert (project.root / ARCHIVE).is_file()
