"""The daily commands of DVC's users, with real DVC: experiments, diffs, plots, a second clone."""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, commit, make_project

from tasks.running.hashes import md5
from tasks.tracking import ingest

METRIC = "data/suites/toy/metrics/seed-0/a.json"
MERGED = "data/suites/toy/merged/seed-0/ties_merging/model.safetensors"
CURVE = "data/suites/toy/metrics/seed-0/trajectory/ties_merging.csv"


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


def dvc(project: Project, *arguments: str) -> str:
    """What a DVC command prints; it must succeed."""
    done = project.run("dvc", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def averages(project: Project) -> dict[str, float]:
    return dict(json.loads((project.root / METRIC).read_text()))


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A toy project after `dvc repro`, dvc.lock committed."""
    made = make_project(tmp_path_factory.mktemp("commands") / "toy")
    dvc(made, "repro", "-q")
    commit(made.root)
    assert git(made.root, "ls-files", "dvc.lock") == "dvc.lock\n"
    return made


@pytest.fixture
def fresh(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of it, for a test that changes it."""
    return Project(Path(shutil.copytree(reproduced.root, tmp_path / "copy")))


@pytest.fixture(scope="module")
def tried(
    reproduced: Project, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A copy of it after an experiment, which is in its folder."""
    root = tmp_path_factory.mktemp("tried") / "toy"
    tried = Project(Path(shutil.copytree(reproduced.root, root)))
    shutil.copy(empty_database, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        ingest.ingest()  # of the reproduction
        dvc(tried, "exp", "run", "-n", "longer", "-S", "raw.length=5")
        yield tried


def test_an_experiment_is_in_the_project_and_in_mlflow(tried: Project, reproduced: Project) -> None:
    from tasks.tracking.store import Store

    assert "length: 5" in Path("params.yaml").read_text()
    assert averages(tried) != averages(reproduced)
    assert git(tried.root, "status", "--porcelain") == " M dvc.lock\n M params.yaml\n"
    ingest.ingest()
    run = Store().last_pipeline()
    assert run is not None
    assert (run.status, run.tags["mlflow.runName"]) == ("FINISHED", "dvc exp run")
    assert run.fact("cmd") == "dvc exp run -n longer -S raw.length=5"
    assert run.fact("stages.run") == "8"


def test_exp_show(tried: Project, reproduced: Project) -> None:
    rows = {row["Experiment"]: row for row in csv.DictReader(_lines(tried, "exp", "show", "--csv"))}
    column = f"{METRIC}:transductive"
    assert rows["longer"]["raw.length"] == "5"
    assert float(rows["longer"][column]) == averages(tried)["transductive"]
    before = averages(reproduced)["transductive"]
    assert before in [float(row[column]) for row in rows.values()]
    shown = json.loads(dvc(tried, "exp", "show", "--json"))
    assert shown[0]["data"]["metrics"][METRIC]["data"] == averages(tried)
    assert shown[1]["experiments"][0]["name"] == "longer"


def _lines(project: Project, *arguments: str) -> list[str]:
    return dvc(project, *arguments).splitlines()


def test_differences_to_the_commit(tried: Project, reproduced: Project) -> None:
    old, new = averages(reproduced)["transductive"], averages(tried)["transductive"]
    metrics = json.loads(dvc(tried, "metrics", "diff", "--json"))
    assert metrics[METRIC]["transductive"] == {"old": old, "new": new, "diff": new - old}
    params = json.loads(dvc(tried, "params", "diff", "--json"))
    assert params == {"params.yaml": {"raw.length": {"old": 3, "new": 5, "diff": 2}}}
    both = json.loads(dvc(tried, "exp", "diff", "HEAD", "longer", "--json"))
    assert both["metrics"][METRIC]["transductive"]["new"] == new
    assert both["params"]["params.yaml"]["raw.length"] == {"old": 3, "new": 5, "diff": 2}


def test_metrics_show(tried: Project) -> None:
    shown = json.loads(dvc(tried, "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert sorted(files) == [METRIC.replace("/a.", f"/{task}.") for task in "abc"]
    assert files[METRIC]["data"] == averages(tried)


def test_plots_diff(tried: Project) -> None:
    shown = json.loads(dvc(tried, "plots", "diff", "--json"))
    values = shown["data"][CURVE][0]["content"]["data"]["values"]
    assert {value["rev"] for value in values} == {"workspace", "HEAD"}
    now = [value["loss"] for value in values if value["rev"] == "workspace"]
    assert now == [line.split(",")[1] for line in Path(CURVE).read_text().splitlines()[1:]]
    dvc(tried, "plots", "diff")
    assert CURVE in Path(".adamerge/plots/index.html").read_text()


@pytest.mark.slow
def test_push_then_an_older_commit_in_a_second_clone(fresh: Project, tmp_path: Path) -> None:
    """The colleague's clone has the files of whichever commit is checked out, without a run."""
    dvc(fresh, "remote", "add", "-d", "store", str(tmp_path / "store"))
    commit(fresh.root)
    first = git(fresh.root, "rev-parse", "HEAD").strip()
    expected = [fresh.hashes()]
    dvc(fresh, "push", "-q")
    fresh.replace("params.yaml", "scaling: 0.3", "scaling: 0.5")
    dvc(fresh, "repro", "-q")
    commit(fresh.root)
    dvc(fresh, "push", "-q")
    expected.append(fresh.hashes())
    assert expected[0][MERGED] != expected[1][MERGED]

    git(tmp_path, "clone", "-q", str(fresh.root), "second")
    second = Project(tmp_path / "second")
    git(second.root, "checkout", "-q", first)
    dvc(second, "pull", "-q")
    assert second.hashes() == expected[0]
    assert "up to date" in dvc(second, "status")
    git(second.root, "checkout", "-q", "-")
    dvc(second, "pull", "-q")
    assert second.hashes() == expected[1]
    git(second.root, "checkout", "-q", first)
    dvc(second, "checkout", "-q")  # both are in its cache now
    assert md5(second.root / MERGED) == expected[0][MERGED]
    assert git(second.root, "status", "--porcelain") == ""
