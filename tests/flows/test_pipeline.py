"""The Prefect flow over DVC stages, and what MLflow and lineage have of it: real ones, all
offline.
"""

import contextlib
import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Project, make_project

from adamerge_core.errors import InputError
from flows import cli, execute
from flows.dvc.internals import modify_lock, no_experiments
from flows.dvc.plan import plan
from flows.notify import NOTIFY
from tasks.graph import dvc_lock, dvc_yaml, params_yaml
from tasks.running.hashes import md5
from tasks.tracking import ingest, lineage, lineage_text

STAGES = [f"{group}@{task}" for group in ("raw", "grow") for task in "abc"] + ["merge", "report"]
GROWN = "data/suites/toy/grown/{}.txt"
MERGED = "data/suites/toy/merged/seed-0/ties_merging/model.safetensors"


def run_flow() -> tuple[str, str]:
    """The message of the flow's last state, and what it printed."""
    from flows.pipeline import pipeline

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        state = pipeline(return_state=True)
    return f"{state.type.value}: {state.message}", printed.getvalue()


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None, empty_database: Path
) -> Iterator[Project]:
    """A toy project after its first run."""
    made = make_project(tmp_path_factory.mktemp("pipeline") / "toy")
    shutil.copy(empty_database, made.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        said, printed = run_flow()
        assert said.startswith("COMPLETED: 8 stages in")
        assert "8 ran, 0 cached" in said
        made.write(".adamerge/first-output", printed)
        yield made


def runs() -> list[object]:
    """All MLflow runs, latest first."""
    from tasks.tracking.store import Store

    client = Store().client
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def cached() -> dict[str, str]:
    """The runs that made the files of the stages that were up to date in the latest pipeline run,
    by stage.
    """
    from tasks.tracking.store import Store

    run = Store().last_pipeline()
    assert run is not None
    assert all(page in run.tags["mlflow.note.content"] for page in run.cached().values())
    return {stage: page.partition("?")[0].rsplit("/", 1)[1] for stage, page in run.cached().items()}


def test_the_first_run_shows_each_stage_and_is_in_mlflow(ran: Project) -> None:
    printed = (ran.root / ".adamerge/first-output").read_text()
    for name in STAGES:
        assert f"] {name} " in printed
    assert "grow@a | 5/5" in printed or "grow@a | 1/5" in printed
    assert "left" in printed
    assert printed.startswith("8 stages, 8 to bring up to date in about ")
    by_name = {run.info.run_name: run for run in runs()}
    assert set(STAGES) <= set(by_name)
    grown = by_name["grow@a"]
    assert grown.data.metrics["loss"] == pytest.approx(0.2)
    averages = json.loads(Path("data/suites/toy/metrics/seed-0/a.json").read_text())
    assert grown.data.metrics["transductive/average"] == averages["transductive"]
    assert grown.data.metrics["held_out/average"] == averages["held_out"]
    assert grown.data.metrics["transductive/photos"] == averages["transductive"]
    assert grown.data.params["grow.steps"] == "5"
    assert grown.data.tags["adamerge.git.dirty"] == "false"
    assert grown.data.tags[f"out/{GROWN.format('a')}"] == md5(Path(GROWN.format("a")))
    assert grown.data.tags["adamerge.upstream"] == by_name["raw@a"].info.run_id
    assert [i.dataset.name for i in grown.inputs.dataset_inputs] == ["a/train"]
    parent = next(r for r in runs() if r.info.run_id == grown.data.tags["mlflow.parentRunId"])
    assert parent.data.metrics["average/transductive/ties_merging"] == 65
    assert parent.data.tags["adamerge.stages.run"] == "8"
    assert parent.data.params["grow.steps"] == "5"


def test_the_merged_model_is_a_logged_model_and_the_best_is_registered(ran: Project) -> None:
    """Its stand-in has no heads, so it cannot be loaded, and is no champion."""
    from tasks.tracking.registry.registered_model import CANDIDATE, CHAMPION, ModelRegistry
    from tasks.tracking.store import Store

    store = Store()
    registry = ModelRegistry(store, "toy")
    best = registry.holder(CANDIDATE)
    assert best is not None
    assert best.tags["adamerge.md5"] == md5(Path(MERGED))
    assert best.details.held_out == {"a": 50.0, "b": 60.0, "average": 55.0}
    assert best.reason == "cannot be loaded: no stage in dvc.lock measured it"
    assert registry.holder(CHAMPION) is None
    assert store.client.get_run(str(best.run_id)).info.run_name == "merge"
    found = store.client.search_logged_models(store.all_experiments())
    (model,) = [each for each in found if each.name == "ties_merging-seed-0-model"]
    assert model.tags["adamerge.path"] == MERGED
    assert store.client.get_run(model.source_run_id).info.run_name == "merge"


def test_nothing_is_left_to_do_and_git_is_clean(ran: Project) -> None:
    assert plan().changed == {}
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True)
    assert status.stdout == "?? dvc.lock\n"
    ignoring = [path.relative_to(ran.root).as_posix() for path in ran.root.rglob(".gitignore")]
    assert sorted(ignoring) == [".dvc/.gitignore", ".gitignore"]
    assert not list(Path(".adamerge/journal").glob("*.jsonl"))


def test_failure_change_and_return(ran: Project) -> None:
    """A changed parameter reruns what depends on it; a failed stage stops only its dependents;
    the change taken back, and dvc.lock torn by a kill, all comes back from the cache and leads
    to the first run.
    """
    before, first = ran.hashes(), {run.info.run_name: run.info.run_id for run in runs()}
    params, whole = Path("params.yaml").read_text(), Path("dvc.lock").read_text()
    ran.replace("params.yaml", "fail: []", "fail: [grow@b]")
    said, printed = run_flow()
    assert said.startswith("FAILED")
    assert "2 ran, 3 cached, 1 failed (grow@b), 2 not run, as they depend on what failed" in said
    assert "grow@b | grow@b: grow@b is told to fail" in printed
    assert "Traceback" not in printed
    assert ran.hashes()["data/suites/toy/grown/a.txt"] != before["data/suites/toy/grown/a.txt"]
    ran.write("params.yaml", params)
    Path("dvc.lock").write_text(whole[: len(whole) // 2] + ": [")
    Path(".dvc/tmp/rwlock").write_text('{"write": {')
    said, printed = run_flow()
    assert "0 ran, 8 cached" in said
    assert "restored" in printed
    assert ran.hashes() == before
    assert cached() == {stage: first[stage] for stage in STAGES}
    assert Path(".adamerge/aside/dvc.lock.1").exists()


def test_plain_dvc_repro_gives_the_same_files_and_records(
    ran: Project, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journals wait for the next command, which makes the pipeline's run from them."""
    other = make_project(tmp_path / "other")
    shutil.copy(empty_database, other.root)
    done = other.run("dvc", "repro", "-q")
    assert done.returncode == 0, done.stderr
    assert other.hashes() == ran.hashes()
    monkeypatch.chdir(other.root)
    assert plan().changed == {}
    assert len(list(Path(".adamerge/journal").glob("*.jsonl"))) == 8
    ingest.ingest()
    assert not list(Path(".adamerge/journal").glob("*.jsonl"))
    found = {run.info.run_name: run for run in runs()}
    assert set(found) == {"dvc repro", *STAGES}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    pipeline = found["dvc repro"]
    assert found["report"].data.tags["mlflow.parentRunId"] == pipeline.info.run_id
    assert pipeline.data.tags["adamerge.cmd"] == "dvc repro -q"
    assert pipeline.data.tags["adamerge.stages.run"] == "8"
    assert pipeline.data.metrics["average/transductive/ties_merging"] == 65
    assert pipeline.info.end_time == found["report"].info.end_time


@pytest.mark.slow
def test_the_flow_and_an_experiment_share_what_ran(ran: Project) -> None:
    """Each takes from the other; dvc.lock need not be committed for it."""
    before, params = ran.hashes(), Path("params.yaml").read_text()
    done = ran.run("dvc", "exp", "run", "-q", "-S", "merge.scaling=0.7")
    assert done.returncode == 0, done.stderr
    changed = ran.hashes()
    assert changed[MERGED] != before[MERGED]
    said, _ = run_flow()
    assert "0 ran, 8 cached" in said
    assert ran.hashes() == changed
    ran.write("params.yaml", params)
    said, _ = run_flow()
    assert "0 ran, 8 cached" in said
    assert ran.hashes() == before


def test_lineage_goes_to_the_source(ran: Project) -> None:
    traced = lineage.trace(MERGED)
    assert traced.md5 == traced.locked_md5 == md5(Path(MERGED))
    assert [o.stage for o in traced.origins] == ["merge", *STAGES[3:6], *STAGES[:3]]
    assert all(origin.run_id and origin.commit for origin in traced.origins)
    assert traced.origins[0].reads[GROWN.format("b")] == md5(Path(GROWN.format("b")))
    text = lineage_text.as_text(traced)
    assert "as in dvc.lock" in text
    assert "python -m work --kind" in text
    assert json.loads(lineage_text.as_json(traced))["origins"][0]["stage"] == "merge"


def test_the_command_lineage(ran: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lineage", "--json", MERGED]) == 0
    assert json.loads(capsys.readouterr().out)["origins"][0]["run_id"]
    holder = sqlite3.connect("mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert cli.main(["lineage", MERGED]) == 1
    finally:
        holder.close()
    said = capsys.readouterr().err
    assert "mlflow.db is locked: another process holds it; end that process" in said
    assert "Traceback" not in said


def test_lineage_of_a_changed_file_says_so(ran: Project) -> None:
    content = Path(MERGED).read_text()
    Path(MERGED).write_text("something else")
    try:
        traced = lineage.trace(MERGED)
        assert "differs from dvc.lock" in lineage_text.as_text(traced)
        assert traced.origins[0].run_id is None
    finally:
        Path(MERGED).write_text(content)


def test_lineage_without_a_database(ran: Project) -> None:
    Path("mlflow.db").rename("away.db")
    try:
        traced = lineage.trace(MERGED)
        assert len(traced.origins) == 7
        assert "no run is recorded" in lineage_text.as_text(traced)
    finally:
        Path("away.db").rename("mlflow.db")


def test_a_users_folder_is_what_lineage_ends_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is data, though no stage writes it."""
    monkeypatch.chdir(tmp_path)
    stage = dvc_yaml.Stage(
        "download",
        "python -m tasks.download --dataset birds",
        deps=("/photos/birds", "tasks/download.py"),
        outs=("data/datasets/birds/raw/images.zip",),
    )
    Path("dvc.yaml").write_text(dvc_yaml.render([stage], "a user's folder"))
    archive = Path(stage.outs[0])
    archive.parent.mkdir(parents=True)
    archive.write_text("birds")
    deps = [{"path": dep, "md5": f"md5-of-{dep}"} for dep in stage.deps]
    outs = [{"path": archive.as_posix(), "md5": md5(archive)}]
    entry = {"cmd": stage.cmd, "deps": deps, "outs": outs}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {stage.name: entry}}))
    traced = lineage.trace(archive.as_posix())
    assert dict(traced.origins[0].reads) == {"/photos/birds": "md5-of-/photos/birds"}
    assert "/photos/birds" not in traced.origins[0].code
    text = lineage_text.as_text(traced)
    assert "  from     md5-of-/photos/birds  /photos/birds" in text
    assert "tasks/download.py" not in text


def test_lineage_of_other_files_says_what_can_be_asked(ran: Project) -> None:
    with pytest.raises(InputError, match=r"do you mean data/suites/toy/grown/a.txt") as caught:
        lineage.trace("data/suites/toy/grow/a.txt")
    assert "data/suites/toy/metrics/seed-0 (3)" in str(caught.value)


def test_another_flow_in_the_same_project_is_refused(ran: Project) -> None:
    from flows.run_lock import alone

    with alone():
        said, _ = run_flow()
    assert said.startswith("FAILED: another `adamerge run` is at work")


def test_a_flow_without_a_command_mends_what_stands_in_its_way(ran: Project) -> None:
    """As a scheduled one is: no `adamerge run` looked at the files before."""
    durations = ran.root / ".adamerge/durations.json"
    durations.unlink()
    durations.mkdir()
    said, printed = run_flow()
    assert said.startswith("COMPLETED: 8 stages in")
    assert "durations.json is no file (moved to .adamerge/aside/durations.json.1)" in printed
    durations.unlink(missing_ok=True)
    durations.symlink_to("gone")
    said, _ = run_flow()
    assert said.startswith("FAILED: ")
    assert "durations.json is a link to gone, which is not there" in said
    durations.unlink()


def test_an_experiment_at_work_is_not_run_into(ran: Project) -> None:
    """Each of the two changes params.yaml and dvc.lock: whoever comes second is told."""
    record = Path(".dvc/tmp/exps/run/workspace/workspace.json")
    record.parent.mkdir(parents=True)
    about = {"pid": os.getpid(), "stdin": None, "stdout": None, "stderr": None, "returncode": None}
    record.write_text(json.dumps(about))
    said, _ = run_flow()
    assert said.startswith("FAILED: `dvc exp run` is at work in this project (process ")
    record.unlink()
    with no_experiments():
        done = ran.run("dvc", "exp", "run", "-S", "raw.length=4")
    assert done.returncode != 0
    assert "'workspace' is busy, it is being blocked by" in done.stderr
    assert "length: 3" in Path("params.yaml").read_text()
    assert plan().changed == {}


# the parts


def test_the_fast_writer_of_dvc_lock_agrees_with_dvc(ran: Project, tmp_path: Path) -> None:
    from dvc.utils.serialize import load_yaml

    text = Path("dvc.lock").read_text()
    odd = {
        "schema": "2.0",
        "stages": {"x": {"cmd": "y", "params": {"p": {"a": 1e-05, "b": "1:30"}}}},
    }
    odd["stages"]["x"]["outs"] = [{"path": "z", "md5": "12e45678901234567890123456789012"}]
    copy = tmp_path / "dvc.lock"
    copy.write_text(text)
    with modify_lock(str(copy)) as content:
        content["stages"]["x"] = odd
    read = load_yaml(str(copy))
    assert read["stages"].pop("x") == odd
    assert read == load_yaml("dvc.lock")
    assert list(read["stages"]) == list(load_yaml("dvc.lock")["stages"])


def test_a_lock_is_read_as_it_is_written(ran: Project) -> None:
    entry = dvc_lock.read_lock()["grow@a"]
    assert entry.outs["data/suites/toy/grown/a.txt"] == md5(Path("data/suites/toy/grown/a.txt"))
    assert entry.params == {"grow": params_yaml.read_params()["grow"]}


# what a run tells that nobody watches; last, as these change the results


def ended(**given: Any) -> Any:
    """The last state of a flow run with these parameters."""
    from flows.pipeline import pipeline

    with contextlib.redirect_stdout(io.StringIO()):
        return pipeline(**given, return_state=True)


def artifacts(state: Any) -> dict[str, str]:
    """The texts of a flow run's artifacts by key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter

    own = {"flow_run_id": {"any_": [state.state_details.flow_run_id]}}
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(own))
        return {str(each.key): str(each.data) for each in found}


def teller(path: Path) -> str:
    """A command that writes the event and the message to a file."""
    text = "os.environ['ADAMERGE_EVENT'] + sys.stdin.read()"
    return shlex.join(
        [sys.executable, "-c", f"import os, sys; open({str(path)!r}, 'w').write({text})"]
    )


def test_a_night_on_which_nothing_changed_says_so(ran: Project) -> None:
    state = ended(reason="a test")
    assert "0 ran, 8 cached: nothing has changed" in state.message
    made = artifacts(state)
    assert made.keys() == {"results-toy", "mlflow-toy"}
    assert "| ties_merging | 65.00 (same) | 55.00 (same) |" in made["results-toy"]
    assert "http://127.0.0.1:5000/#/experiments/" in made["mlflow-toy"]


def test_a_target_that_is_none_is_refused(ran: Project) -> None:
    refused = ended(targets=["nothing"])
    assert refused.name == "BadInput"
    assert "'nothing' is no stage" in refused.message


def test_what_fails_is_told_with_its_last_lines_and_tried_again_where_a_network_failed_it(
    ran: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    monkeypatch.setenv(NOTIFY, teller(told))
    monkeypatch.setattr(execute, "RETRY_SECONDS", (0.1,))
    ran.write("no-network-grow@a", "once")
    ran.write("no-network-grow@c", "always")
    ran.replace("params.yaml", "fail: []", "fail: [grow@b]")
    state = ended(targets=["grow"], force=True)
    ran.replace("params.yaml", "fail: [grow@b]", "fail: []")
    (ran.root / "no-network-grow@c").unlink()
    said = "grow@b: grow@b is told to fail"
    assert state.is_failed()
    assert "1 ran, 3 cached, 2 failed" in state.message
    assert not (ran.root / "no-network-grow@a").exists()
    assert state.message.count(said) == 1
    assert state.message.count("grow@c: grow@c reaches nobody") == 2
    assert state.message.count("the network failed: again in 0:00") == 1
    assert told.read_text() == f"failed{state.message}"
    assert said in artifacts(state)["failures-toy"]


def test_a_fall_in_accuracy_is_told(
    ran: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    monkeypatch.setenv(NOTIFY, teller(told))
    ran.replace("work.py", "held_out,0,50,60,55", "held_out,0,40,50,45")
    state = ended()
    assert (state.name, state.is_completed()) == ("Fell", True)
    assert "ties_merging, held_out: 55.00 -> 45.00 %" in state.message
    assert told.read_text().startswith("fell")
    assert "Fell: ties" in artifacts(state)["results-toy"]
    assert "45.00 (-10.00)" in artifacts(state)["results-toy"]
