"""The registered model of a suite: which version is champion, why, and who says so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from offered_models import begin_run, run_with

from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.running.hashes import md5
from tasks.suite.tolerances import Tolerances
from tasks.tracking import ingest
from tasks.tracking.registry.judgement import Measures, judge, table
from tasks.tracking.registry.registered_model import CHAMPION, Decision, ModelRegistry
from tasks.tracking.registry.versions import Version
from tasks.tracking.store import Store

TOLERANCES = Tolerances(average_tolerance=0.5, task_tolerance=2.0)
ALICE = Decision("alice", "2026-01-02 03:04", "it is better on my photos")


def measures(version: str, images: str = "same", **accuracies: float) -> Measures:
    average = sum(accuracies.values()) / len(accuracies)
    return Measures(version, {**accuracies, "average": round(average, 2)}, images)


def of_toy() -> ModelRegistry:
    return ModelRegistry(Store(), "toy")


def aliases() -> dict[str, str]:
    """The number of the version that has each alias."""
    return {alias: each.number for each in of_toy().versions() for alias in each.aliases}


def only(version: str) -> Version:
    return of_toy().version(version)


# the rule


@pytest.mark.parametrize(
    ("a", "b", "moves", "said"),
    [
        (70.0, 60.0, True, "its average is level, and no task falls by more than 2 points"),
        (71.0, 62.0, True, "its average is 1.50 points above"),
        (69.5, 59.5, True, "its average is 0.50 points below"),
        (69.4, 59.5, False, "its average is 0.55 points below (at most 0.5 allowed)"),
        (68.0, 63.0, True, "(a is 2.00 points below)"),
        (67.9, 70.0, False, "a is 2.10 points below (at most 2 allowed)"),
    ],
)
def test_a_candidate_is_judged_by_average_and_by_task(
    a: float, b: float, moves: bool, said: str
) -> None:
    judged = judge(measures("2", a=a, b=b), measures("1", a=70.0, b=60.0), TOLERANCES)
    assert judged.moves is moves
    assert judged.why.startswith("against version 1 ")
    assert said in judged.why


def test_what_was_measured_otherwise_is_not_compared() -> None:
    champion = measures("1", a=70.0, b=60.0)
    for other, said in (
        (measures("2", a=90.0), "has other tasks (a, b)"),
        (measures("2", images="new", a=90.0, b=90.0), "was measured on other images"),
    ):
        judged = judge(other, champion, TOLERANCES)
        assert not judged.moves
        assert said in judged.why
        assert "`adamerge models promote 2`" in judged.why
    assert not judge(measures("2", a=90.0), Measures("1", {}, ""), TOLERANCES).moves
    assert judge(measures("1", a=1.0), None, TOLERANCES).moves


def test_the_table_has_both_and_their_difference() -> None:
    text = table(measures("2", a=71.0, c=50.0), measures("1", a=70.0, b=60.0))
    lines = text.replace("&emsp;", "").splitlines()
    assert lines[0] == "| task | this version | champion (version 1) | difference |"
    assert lines[2:] == [
        "| a | 71.00 | 70.00 | +1.00 |",
        "| c | 50.00 |  |  |",
        "| b |  | 60.00 |  |",
        "| average | 60.50 | 65.00 | -4.50 |",
    ]


def test_of_many_tasks_that_fall_the_worst_are_named() -> None:
    before = dict.fromkeys("abcde", 90.0)
    after = {name: 80.0 - n for n, name in enumerate("abcde")}
    judged = judge(measures("2", **after), measures("1", **before), TOLERANCES)
    assert "e is 14.00 points below, d is 13.00 points below, c is 12.00 points below" in judged.why
    assert judged.why.endswith(" and 2 tasks more (at most 2 allowed)")


# by real journals


def test_a_worse_run_does_not_move_the_champion_and_a_better_one_does(
    project: Project, database: Path
) -> None:
    run_with("first", {"a": 70.0, "b": 60.0})
    assert aliases() == {"candidate": "1", "champion": "1"}
    assert only("1").reason == "became champion: there was no champion before"
    run_with("worse", {"a": 75.0, "b": 57.0})
    assert aliases() == {"candidate": "2", "champion": "1"}
    worse = only("2")
    assert "not champion: against version 1 b is 3.00 points below" in worse.reason
    assert "**Did not become champion**: against version 1" in worse.description
    assert "| b&emsp; | 57.00 | 60.00 | -3.00 |" in worse.description
    run_with("better", {"a": 72.0, "b": 61.0})
    assert aliases() == {"candidate": "3", "champion": "3"}
    better = only("3")
    assert "became champion: against version 1 its average is 1.50 points above" in better.reason
    assert "| average&emsp; | 66.50 | 65.00 | +1.50 |" in better.description
    run = Store().client.get_run(better.details.run)
    assert run.info.run_name == better.details.run_name
    assert run.info.run_id in better.description
    weights = Store().client.get_run(str(better.run_id))
    assert weights.info.run_name == "merge"


def test_a_run_that_makes_an_earlier_model_makes_no_version(
    project: Project, database: Path
) -> None:
    run_with("first", {"a": 70.0})
    run_with("better", {"a": 80.0})
    run_with("first", {"a": 70.0})
    assert aliases() == {"candidate": "1", "champion": "2"}
    assert len(of_toy().versions()) == 2


def test_the_page_of_a_version_has_measures_and_is_kilobytes(
    project: Project, database: Path
) -> None:
    run_with("first", {"a": 70.0, "b": 60.0})
    version = only("1")
    model = Store().client.get_logged_model(version.model_id)
    shown = {metric.key: metric.value for metric in model.metrics or []}
    assert shown == {"held_out/a": 70.0, "held_out/b": 60.0, "held_out/average": 65.0}
    assert version.tags["adamerge.held_out.average"] == "65.00"
    folder = Path(str(model.artifact_location).removeprefix("file://"))
    files = {path.name for path in folder.iterdir()}
    assert {"MLmodel", "merged_model.json", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pt", ".safetensors"))]
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 20_000


def test_other_test_images_are_no_reason_to_move(project: Project, database: Path) -> None:
    run_with("first", {"a": 70.0})
    run_with("second", {"a": 90.0}, images=1)
    assert aliases() == {"candidate": "2", "champion": "1"}
    assert "was measured on other images" in only("2").reason


def test_a_model_that_cannot_be_told_is_no_champion_and_no_failure(
    project: Project, database: Path
) -> None:
    run_with("first", {"a": 70.0}, whole=False)
    assert not list(Path(".adamerge/journal").glob("*.jsonl"))
    assert aliases() == {"candidate": "1"}
    said = only("1").reason
    assert "cannot be loaded: data/datasets/a/classes.json: is neither there nor in DVC's" in said
    with pytest.raises(InputError, match=r"cannot be loaded: .*; promote another"):
        of_toy().promote("1", ALICE)
    run = Store().last_pipeline()
    assert run is not None
    assert run.status == "FINISHED"


def test_a_suite_without_tolerances_offers_nothing(project: Project, database: Path) -> None:
    project.replace("params.yaml", "registry:", "other:")
    run_with("first", {"a": 70.0})
    assert of_toy().versions() == []
    run = Store().last_pipeline()
    assert run is not None
    assert "has no section registry" in str(run.fact("not_registered"))


def test_results_of_an_earlier_model_offer_nothing(project: Project, database: Path) -> None:
    """As after a run whose report failed: its accuracies are not those of the new weights."""
    begin_run("first", {"a": 70.0})
    lock, evaluation = Path("dvc.lock").read_text(), paths.evaluation("toy", "ties_merging", 0)
    begin, _, end = lock.rpartition(md5(evaluation))
    for stale, said in ((begin + "f" * 32 + end, "dvc repro"), (lock, "dvc checkout")):
        Path("dvc.lock").write_text(stale)
        ingest.ingest()
        run = Store().last_pipeline()
        assert run is not None
        assert said in str(run.fact("not_registered"))
        begin_run("first", {"a": 70.0})
        results = paths.report("toy") / "results.csv"
        results.write_text(results.read_text().replace("70.00", "99.00"))
    assert of_toy().versions() == []


def test_registering_that_is_cut_anywhere_ends_the_same(
    project: Project, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after each call that changes something in turn; the next ingestion goes on."""
    from mlflow import MlflowClient

    class Crash(BaseException):
        pass

    changing = (
        *("create_registered_model", "create_logged_model", "log_model_artifacts"),
        *("finalize_logged_model", "create_model_version", "update_model_version"),
        *("set_model_version_tag", "set_registered_model_tag", "set_registered_model_alias"),
    )
    cut: set[tuple[str, ...]] = set()

    def crashing(name: str) -> Any:
        whole = getattr(MlflowClient, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = whole(*arguments, **options)
            # without descriptions and folders, which are others at each attempt
            words = [each for each in map(str, arguments[1:]) if re.fullmatch(r"[\w.]+", each)]
            key = (name, *words)
            if key not in cut:
                cut.add(key)
                raise Crash
            return result

        return call

    run_with("first", {"a": 70.0})
    begin_run("second", {"a": 80.0})
    attempts = 1
    with monkeypatch.context() as patch:
        for name in changing:
            patch.setattr(MlflowClient, name, crashing(name))
        while True:
            try:
                ingest.ingest()
            except Crash:
                attempts += 1
                continue
            break
    assert attempts == len(cut) + 1
    assert {name for name, *_ in cut} == {*changing} - {"create_registered_model"}
    assert aliases() == {"candidate": "2", "champion": "2"}
    assert len(of_toy().versions()) == 2
    assert only("2").reason.startswith("became champion: against version 1 its average is 10.00")
    assert of_toy()._champions() == ["1", "2"]
    models = Store().client.search_logged_models(Store().all_experiments())
    assert sum(model.name == "toy-merged" for model in models) == 2
    assert not list(Path(".adamerge/journal").glob("*.jsonl"))


# by a person


def test_a_person_promotes_and_rolls_back_and_no_run_undoes_it(
    project: Project, database: Path
) -> None:
    for weights, accuracy in (("first", 70.0), ("better", 75.0), ("worse", 60.0)):
        run_with(weights, {"a": accuracy})
    assert aliases() == {"candidate": "3", "champion": "2"}
    of_toy().promote("3", ALICE)
    assert aliases()["champion"] == "3"
    assert only("3").reason == f"promoted by {ALICE}"
    assert "**By hand**: promoted by alice, 2026-01-02 03:04: it is better" in only("3").description
    assert only("2").reason == f"replaced by version 3, promoted by {ALICE}"
    with pytest.raises(InputError, match="is the champion already"):
        of_toy().promote("3", ALICE)
    assert of_toy().roll_back(ALICE).number == "2"
    assert of_toy().roll_back(ALICE).number == "1"
    with pytest.raises(InputError, match="no version was champion before"):
        of_toy().roll_back(ALICE)
    assert aliases() == {"candidate": "3", "champion": "1"}
    run_with("better", {"a": 75.0})
    assert aliases() == {"candidate": "2", "champion": "1"}
    run_with("new", {"a": 76.0})
    assert aliases() == {"candidate": "4", "champion": "4"}


def test_a_champion_that_was_set_in_mlflow_is_one_to_come_back_to(
    project: Project, database: Path
) -> None:
    run_with("first", {"a": 70.0})
    run_with("worse", {"a": 60.0})
    Store().client.set_registered_model_alias("toy-merged", CHAMPION, "2")
    run_with("better", {"a": 75.0})
    assert aliases()["champion"] == "3"
    assert of_toy().roll_back(ALICE).number == "2"
    assert of_toy().roll_back(ALICE).number == "1"


def test_an_unknown_version_is_said_with_those_there_are(project: Project, database: Path) -> None:
    with pytest.raises(InputError, match=r"none yet \(adamerge run\)"):
        of_toy().version("1")
    run_with("first", {"a": 70.0})
    with pytest.raises(InputError, match=r"version '7' of toy-merged: the versions are 1"):
        of_toy().promote("7", ALICE)
    with pytest.raises(InputError, match="no version was champion before"):
        of_toy().roll_back(ALICE)


def test_a_record_names_what_was_measured(project: Project, database: Path) -> None:
    run_with("first", {"a": 70.0, "b": 60.0})
    model = Store().client.get_logged_model(only("1").model_id)
    folder = Path(str(model.artifact_location).removeprefix("file://"))
    record = json.loads((folder / "merged_model.json").read_text())
    assert record["encoder"]["path"] == paths.merged("toy", "ties_merging", 0).as_posix()
    assert list(record["heads"]) == ["a", "b"]
    assert record["heads"]["a"]["classes"] == ["one", "two"]
    assert record["image_size"] == 8
