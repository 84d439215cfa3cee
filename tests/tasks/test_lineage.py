"""Lineage of models and of commits, and how a lineage is told. Of files: tests/flows."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import Project
from journal_runs import stage_run

from adamerge_core.errors import InputError
from tasks.running.commit import Commit
from tasks.running.hashes import md5
from tasks.tracking import ingest, lineage, lineage_text
from tasks.tracking.store import Store

RESULTS = "data/suites/toy/report/results.csv"
MERGED = "data/suites/toy/merged/seed-0/ties_merging/model.safetensors"

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def made(project: Project) -> str:
    """Two stage runs of the project's commit; returns the commit."""
    revision = Commit.current().revision
    assert revision
    for path in (RESULTS, MERGED):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)
    merged = {MERGED: md5(Path(MERGED))}
    stage_run("merge", "stage-1", merged, commit=revision)
    stage_run("report", "stage-1", {RESULTS: md5(Path(RESULTS))}, read=merged, commit=revision)
    ingest.ingest()
    return revision


def git(*words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


def test_of_a_commit_without_results_it_is_of_those_made_from_it(made: str) -> None:
    traced = lineage.trace("HEAD")
    assert (traced.path, traced.md5) == (RESULTS, md5(Path(RESULTS)))
    assert traced.about == f"commit {made[:12]}, the last run from it"
    assert [origin.stage for origin in traced.origins] == ["report", "merge"]
    assert lineage.trace(made[:10]) == traced


def test_of_a_commit_it_is_of_the_results_in_its_lock(made: str) -> None:
    outs = [{"path": RESULTS, "md5": "of-then"}]
    lock = {"stages": {"report": {"cmd": "x", "outs": outs}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    git("add", "-f", "dvc.lock")
    git("commit", "-qm", "results")
    Path("dvc.lock").unlink()
    traced = lineage.trace("HEAD")
    assert traced.md5 == "of-then"
    assert traced.about.endswith("its dvc.lock")
    assert lineage.trace("HEAD~1").md5 == md5(Path(RESULTS))


def test_a_commit_without_any_says_so(made: str) -> None:
    git("commit", "-qm", "nothing", "--allow-empty")
    with pytest.raises(InputError, match="no run that made results from it is recorded"):
        lineage.trace("HEAD")


def test_what_is_no_file_model_or_commit_is_an_error(made: str) -> None:
    for what in ("nothing-merged@champion", "toy-merged/7", "--output=x", "toy merged", "models:/"):
        with pytest.raises(InputError, match="is not written by any stage"):
            lineage.trace(what)


def test_of_a_model_it_is_of_its_weights(made: str) -> None:
    client = Store().client
    client.create_registered_model("toy-merged")
    tags = {"adamerge.path": MERGED, "adamerge.md5": md5(Path(MERGED))}
    client.create_model_version(
        "toy-merged", source=Path("mlartifacts").resolve().as_uri(), tags=tags
    )
    client.set_registered_model_alias("toy-merged", "champion", "1")
    traced = lineage.trace("toy-merged")
    assert (traced.path, traced.md5) == (MERGED, md5(Path(MERGED)))
    assert traced.about == "toy-merged, version 1"
    for name in ("toy-merged/1", "toy-merged@champion", "models:/toy-merged@champion"):
        assert lineage.trace(name) == traced


def test_a_version_that_was_registered_otherwise_is_an_error(made: str) -> None:
    client = Store().client
    client.create_registered_model("toy-merged")
    client.create_model_version("toy-merged", source=Path("mlartifacts").resolve().as_uri())
    with pytest.raises(InputError, match="version 1: this pipeline did not register it"):
        lineage.trace("toy-merged/1")


def test_a_long_lineage_is_told_on_one_screen(made: str) -> None:
    whole = lineage.trace(RESULTS)
    report, merge = whole.origins
    files = {f"{n}.npy": "m" for n in range(800)}
    many = [
        replace(merge, stage=f"prepare@{n}-64", cmd="python -m tasks.prepare", writes={path: "m"})
        for n, path in enumerate(files)
    ]
    long = replace(whole, origins=(replace(report, reads=files), *many))
    text = lineage_text.as_text(long)
    assert len(text.splitlines()) < 20
    assert "prepare (800)" in text
    assert " more" in text
    assert len(lineage_text.as_full_text(long).splitlines()) > 800


def test_the_phases_of_a_screen_stand_after_what_reads_from_them(made: str) -> None:
    whole = lineage.trace(RESULTS)
    report, merge = whole.origins
    raw = replace(merge, stage="raw@a", cmd="python -m work.raw", writes={"a": "1"})
    grow = replace(
        raw, stage="grow@a", cmd="python -m work.grow", writes={"b": "2"}, reads={"a": "1"}
    )
    read = replace(report, reads={"a": "1", "b": "2"})
    lines = lineage_text.as_text(replace(whole, origins=(read, raw, grow))).splitlines()
    at = {line.strip(): n for n, line in enumerate(lines)}
    assert at["grow (1)  <- raw"] < at["raw (1)"]


def test_a_page_has_a_link_to_each_run(made: str) -> None:
    page = lineage_text.as_html(lineage.trace(RESULTS), "http://127.0.0.1:5000")
    assert page.count('href="http://127.0.0.1:5000/#/experiments/') == 2
    assert f"Lineage of {RESULTS}" in page
