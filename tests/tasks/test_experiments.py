"""Experiments: their settings, their stages on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from stage_runs import run_all, run_one, use
from test_stages import STEPS, make_photos, tiny_parameters

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import AFTER, RULES, after
from adamerge_core.running_statistics import average_running_statistics
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.images import LabeledImages
from tasks import wiring
from tasks.experiments import measuring, unlabeled
from tasks.experiments.measuring import each_of
from tasks.experiments.registry import RUNS
from tasks.graph import paths
from tasks.report.reads import PAGES
from tasks.running.work import PlainReporter, Work
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads
from tasks.shared.long_tables import (
    ACCURACY,
    AGREEMENT,
    ENTROPY,
    EVENNESS,
    MEASURED_IN_EXPERIMENT,
    read_long,
)
from tasks.suite.experiments.sections import EXPERIMENTS, experiment_faults, settings_for
from tasks.suite.schema import Suite, checked
from tasks.suite.yaml_files import load_yaml

FILES = {name: load_yaml(ROOT / f"experiments/{name}.yaml") for name in EXPERIMENTS}
SETTINGS = {name: settings_for("mini", content) for name, content in FILES.items()}
"""As the repository has them for mini."""


def mini(**experiments: Any) -> Suite:
    raw = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    return checked(raw | {"experiments": experiments}, "suite")


# --- settings -----------------------------------------------------------------------------------


def test_every_experiment_has_settings_stages_and_a_page() -> None:
    files = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    assert set(EXPERIMENTS) == set(RUNS) == files
    assert files <= set(PAGES)


def test_the_settings_of_the_repository_fit_its_suite() -> None:
    suite = mini(**SETTINGS)
    assert list(suite.studied) == list(EXPERIMENTS)
    assert all(suite.studied[name].key == f"experiments.{name}" for name in EXPERIMENTS)
    assert mini().studied == {}


def test_settings_of_a_file_are_otherwise_for_a_suite_that_it_names() -> None:
    content = {"images": 9, "percent": [1], "suites": {"small": {"images": 2}, "bare": None}}
    assert settings_for("small", content) == {"images": 2, "percent": [1]}
    assert settings_for("other", content) == settings_for("bare", content)
    assert settings_for(None, content) == {"images": 9, "percent": [1]}
    named = {suite for content in FILES.values() for suite in content.get("suites", {})}
    assert all((ROOT / f"suites/{suite}.yaml").is_file() for suite in named)


@pytest.mark.parametrize("kind", ["finetune", "fusionbench", "local"])
def test_the_settings_of_the_repository_fit_the_suites_of_the_paper(kind: str) -> None:
    raw = load_yaml(ROOT / f"suites/clip-vit-b-32-8-{kind}.yaml")
    settings = {name: settings_for(raw["suite"], content) for name, content in FILES.items()}
    suite = checked(raw | {"experiments": settings}, "suite")
    assert list(suite.studied) == list(EXPERIMENTS)
    assert set(wiring.stages(checked(raw, "suite"))) < set(wiring.stages(suite))


def test_a_suite_without_experiments_has_neither_their_stages_nor_their_pages() -> None:
    without, beside = set(wiring.stages(mini())), wiring.stages(mini(**SETTINGS))
    assert without < set(beside)
    modules = {beside[name].cmd.split()[2] for name in set(beside) - without}
    assert modules == {f"tasks.experiments.{name}" for name in EXPERIMENTS}


def test_parameters_and_files_of_the_stages_exist() -> None:
    suite = mini(**SETTINGS)
    stages = wiring.stages(suite)
    written = [path for stage in stages.values() for path in stage.files]
    assert len(written) == len(set(written))
    for stage in stages.values():
        assert {path for path in stage.deps if path.startswith("data/")} <= set(written), stage.name
        for key in stage.params:
            value: Any = suite.raw
            for part in key.split("."):
                value = value[part]


def test_faults_of_settings_are_listed_where_they_stand() -> None:
    faults = experiment_faults(
        {
            "sensitivity": {
                "scalings": [0.1],
                "images": 0,
                "steps": 3,
                "methods": {"ties": {"rule": "ties_merging", "keep": 7}},
            },
            "nonsense": {},
        }
    )
    beginnings = [line.split(":")[0].split(" = ")[0] for line in faults]
    assert beginnings == [
        "experiments.sensitivity.methods.ties.keep",
        "experiments.sensitivity.scalings",
        "experiments.sensitivity.images",
        "experiments.sensitivity.steps",
        "experiments.nonsense",
    ]


def test_sensitivity_takes_rules_with_a_scaling_and_scalings_that_they_take() -> None:
    methods = {
        "mean": {"rule": "weight_averaging"},
        "learned": {"adapt": "layer_wise"},
        "fine": {"rule": "task_arithmetic"},
    }
    settings = {"scalings": [0.1, 0.2], "images": 5, "methods": methods}
    faults = experiment_faults({"sensitivity": settings})
    assert len(faults) == 2
    for name, line in zip(("mean", "learned"), faults, strict=True):
        assert (
            line == f"experiments.sensitivity.methods.{name}: is no rule with a scaling; remove it"
        )


def test_unlabeled_takes_adaptations_and_amounts_that_differ() -> None:
    methods = {"sum": {"rule": "task_arithmetic"}}
    settings = {"images": [4, 4], "percent": [], "methods": methods}
    faults = experiment_faults({"unlabeled": settings})
    assert faults == [
        "experiments.unlabeled.methods.sum: is a rule that sees no image; remove it",
        "experiments.unlabeled.images, percent: each must stand once",
    ]
    few = {"images": [4], "percent": [], "methods": {"a": {"adapt": "layer_wise"}}}
    assert experiment_faults({"unlabeled": few}) == [
        "experiments.unlabeled.images, percent: must have at least 2 together"
    ]
    rules = {"fisher": {"rule": "fisher_merging"}, "regmean": {"rule": "regmean"}}
    unsaid = {"images": [0, 4], "percent": [], "methods": rules}
    assert experiment_faults({"unlabeled": unsaid}) == [
        "experiments.unlabeled.fisher_probes: is missing, and methods.fisher needs it; add it, "
        "for example fisher_probes: 4",
        "experiments.unlabeled.images, percent: must have at least 2 above 0 for a rule",
    ]
    said = unsaid | {"percent": [50], "fisher_probes": 2}
    assert experiment_faults({"unlabeled": said}) == []
    farther = {"scalings": [0.1, 0.3], "images": 3, "methods": methods}
    assert experiment_faults({"sensitivity": farther | {"beyond": {"sum": [2.0, 3.0]}}}) == []
    assert experiment_faults(
        {"sensitivity": farther | {"beyond": {"sum": [2.0, 0.3], "other": [2.0]}}}
    ) == [
        "experiments.sensitivity.beyond.other: is none of methods; give one of sum, or remove it",
        "experiments.sensitivity.beyond.sum = [2.0, 0.3]: each must stand once, and not in "
        "scalings",
    ]
    twice = {"scalings": [1.0, 1.0], "images": 3, "methods": methods}
    assert "each must stand once" in experiment_faults({"sensitivity": twice})[0]


def test_statistics_that_a_method_of_an_experiment_needs_are_asked_for() -> None:
    @after(source="here", needs="fisher_diagonal")
    def calibrate(merged: StateDict, vectors: TaskVectors, fisher: object) -> StateDict:
        """Calibrate."""
        raise InputError("nothing is merged here")

    methods = {"calibrated": {"rule": "task_arithmetic", "after": "calibrate"}}
    needs = r"statistics: is missing, and experiments.sensitivity.methods.calibrated needs fisher"
    try:
        with pytest.raises(InputError, match=needs):
            mini(sensitivity=SETTINGS["sensitivity"] | {"methods": methods, "beyond": {}})
    finally:
        del AFTER["calibrate"]


# --- stages -------------------------------------------------------------------------------------


def tiny(*more: str, **experiments: Any) -> Suite:
    """A suite of two tasks and `more`."""
    raw = tiny_parameters("cpu")
    for task in more:
        raw["tasks"].append(task)
        raw["datasets"][task] = raw["datasets"]["landuse"]
    raw["methods"] = {
        "task_arithmetic": {"rule": "task_arithmetic"},
        "layer_wise": {"adapt": "layer_wise", **STEPS},
    }
    return checked(raw | {"experiments": experiments}, "tiny suite")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tasks", "adamerge_core"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    make_photos(Path("photos"))
    return tmp_path


def table(name: str, item: str) -> list[dict[str, Any]]:
    return read_long(paths.experiment("tiny", name, item, 0), MEASURED_IN_EXPERIMENT)


NOT_NEEDED = ("corrupt", "robustness", "evaluate", "geometry", "report", "traditional_mtl", "merge")


def run_experiments(suite: Suite) -> None:
    use(suite)
    run_all(suite, without=NOT_NEEDED)


@pytest.mark.usefixtures("folder")
def test_sensitivity() -> None:
    scalings = [0.0, 0.3, 1.0]
    methods = {name: {"rule": name} for name in ("task_arithmetic", "ties_merging")}
    settings = {"scalings": [0.0, 0.3], "beyond": {"task_arithmetic": [1.0]}, "methods": methods}
    suite = tiny(sensitivity={"images": 15, **settings})
    run_experiments(suite)
    assert {row["setting"] for row in table("sensitivity", "ties_merging")} == {"0.0", "0.3"}
    rows = table("sensitivity", "task_arithmetic")
    assert [(row["setting"], row["task"], row["metric"]) for row in rows] == [
        (str(scaling), task, metric)
        for scaling in scalings
        for task in suite.tasks
        for metric in (ACCURACY, ENTROPY)
    ]
    vectors = {task: checkpoints.load(paths.finetuned("tiny", task, 0)) for task in suite.tasks}
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    for scaling in scalings:
        model = {
            name: weight + scaling * sum(each[name] - weight for each in vectors.values())
            if weight.is_floating_point()
            else weight
            for name, weight in pretrained.items()
        }
        assert_measured([r for r in rows if r["setting"] == str(scaling)], suite, model, slice(15))
    adapted = checkpoints.load(paths.merged("tiny", "layer_wise", 0, "transductive"))
    assert_measured(table("adapted", "layer_wise"), suite, adapted, slice(15))


@pytest.mark.usefixtures("folder")
def test_unlabeled() -> None:
    """None are the start; all are what the suite's own adaptation learns by the same protocol."""
    method = {"adapt": "layer_wise", **STEPS}
    settings = {"images": [0, 1], "percent": [50, 100], "methods": {"learned": method}}
    suite = tiny(unlabeled=settings)
    run_experiments(suite)
    held_out = slice(10, 20)
    whole = checkpoints.load(paths.merged("tiny", "layer_wise", 0, "held_out"))
    assert_measured(table("unlabeled", "learned-100_percent"), suite, whole, held_out)
    start = checkpoints.load(paths.pretrained("tiny"))
    tuned = [checkpoints.load(paths.finetuned("tiny", task, 0)) for task in suite.tasks]
    for name, weight in start.items():
        if weight.is_floating_point():
            start[name] = weight + 0.3 * sum(each[name] - weight for each in tuned)
    assert_measured(table("unlabeled", "learned-0_images"), suite, start, held_out)
    entropies = {
        tuple(row["value"] for row in table("unlabeled", f"learned-{amount}"))
        for amount in ("0_images", "1_images", "50_percent", "100_percent")
    }
    assert len(entropies) == 4


# of the gradients of single images through EfficientNet's convolutions
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.usefixtures("folder")
def test_unlabeled_rules_take_statistics_of_the_images_that_they_see() -> None:
    """And not those that the suite has of other images."""
    methods = {"fisher": {"rule": "fisher_merging"}, "regmean": {"rule": "regmean"}}
    settings = {"images": [0, 2], "percent": [100], "methods": methods, "fisher_probes": 2}
    suite = tiny(unlabeled=settings)
    run_experiments(suite)
    start = checkpoints.load(paths.pretrained("tiny"))
    tuned = {task: checkpoints.load(paths.finetuned("tiny", task, 0)) for task in suite.tasks}
    vectors = TaskVectors.from_checkpoints(start, tuned)
    device = torch.device("cpu")
    encoder, heads = open_encoder(suite.raw["model"], device), open_heads("tiny", tuned, device)
    images = {task: np.load(paths.images(task, "32", "test")) for task in tuned}
    fisher, grams = {}, {}
    for task, model in tuned.items():
        encoder.load_state_dict(model)
        fisher[task] = fisher_diagonal(encoder, heads[task], images[task][:2], probes=2, seed=0)
        grams[task] = gram_matrices(encoder, images[task][:2])
    averaged = average_running_statistics(vectors)
    for name, merged in (
        ("fisher", RULES["fisher_merging"](averaged, fisher)),
        ("regmean", RULES["regmean"](averaged, grams)),
    ):
        assert not paths.experiment("tiny", "unlabeled", f"{name}-0_images", 0).exists()
        assert_measured(table("unlabeled", f"{name}-2_images"), suite, merged, slice(10, 20))
        few, many = (table("unlabeled", f"{name}-{each}") for each in ("2_images", "100_percent"))
        assert [row["value"] for row in few] != [row["value"] for row in many]


@pytest.mark.usefixtures("folder")
def test_more_images_than_there_are_is_an_error_that_names_the_tasks() -> None:
    with pytest.raises(InputError) as caught:
        unlabeled._seen({"signs": 3, "mnist": 20, "letters": 2}, "16_images")
    assert "images = 16: signs has 3" in str(caught.value)
    assert "letters has 2" in str(caught.value)
    assert "mnist" not in str(caught.value)
    assert unlabeled._seen({"signs": 3, "mnist": 20}, "10_percent") == {
        "signs": slice(1),
        "mnist": slice(2),
    }


@pytest.mark.usefixtures("folder")
def test_unseen() -> None:
    """The tasks left out take no part in the merge, nor their images in what is learned."""
    methods = {"sum": {"rule": "task_arithmetic"}, "learned": {"adapt": "layer_wise", **STEPS}}
    suite = tiny(
        "mnist", unseen={"splits": {"one": ["landuse"]}, "pairs": False, "methods": methods}
    )
    run_experiments(suite)
    rows = table("unseen", "one")
    assert [row["method"] for row in rows[:: 2 * len(suite.tasks)]] == ["pretrained", *methods]
    assert {row["task"] for row in rows} == set(suite.tasks)
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    merged = ("stripes", "mnist")
    tuned = [checkpoints.load(paths.finetuned("tiny", task, 0)) for task in merged]
    added = {
        name: weight + 0.3 * sum(each[name] - weight for each in tuned)
        if weight.is_floating_point()
        else weight
        for name, weight in pretrained.items()
    }
    by_method = {m: [r for r in rows if r["method"] == m] for m in ("pretrained", "sum", "learned")}
    assert_measured(by_method["pretrained"], suite, pretrained, slice(None))
    assert_measured(by_method["sum"], suite, added, slice(None))
    assert [r["value"] for r in by_method["learned"]] != [r["value"] for r in by_method["sum"]]
    images = paths.images("landuse", 32, "test")
    np.save(images, 255 - np.load(images))
    run_one(wiring.stages(suite)["unseen_one@tiny-0"])
    again = [row for row in table("unseen", "one") if row["task"] != "landuse"]
    assert again == [row for row in rows if row["task"] != "landuse"]


@pytest.mark.usefixtures("folder")
def test_corruptions() -> None:
    """On the clean images and on the corrupted ones; a rule's model is the same on both."""
    methods = {"sum": {"rule": "task_arithmetic"}, "learned": {"adapt": "layer_wise", **STEPS}}
    suite = tiny(corruptions={"methods": methods})
    use(suite)
    run_all(suite, without=tuple(set(NOT_NEEDED) - {"corrupt"}))
    corruption, severity = suite.corrupt.corruptions[0], suite.corrupt.severities[0]
    size, tasks = str(suite.size), suite.corrupt.tasks
    experts = {
        task: predicted(suite, task, checkpoints.load(paths.finetuned("tiny", task, 0)), corruption)
        for task in tasks
    }
    made = checkpoints.load(paths.experiment_model("tiny", "corruptions", "learned", 0))
    on_clean = f"{corruption}/{severity}/clean"
    rows = {
        (row["setting"], row["method"], row["task"], row["metric"]): row["value"]
        for row in table("corruptions", f"learned-{corruption}")
    }
    for task in tasks:
        shares = predicted(suite, task, made, corruption)
        labels = np.load(paths.labels(task, size, "test"))[: len(shares)]
        mean = shares.mean(axis=0)
        wanted = {
            ACCURACY: 100 * np.mean(shares.argmax(axis=1) == labels),
            ENTROPY: -np.mean(np.sum(shares * np.log(shares), axis=1)),
            EVENNESS: -np.sum(mean * np.log(mean)) / np.log(len(mean)),
            AGREEMENT: 100 * np.mean(shares.argmax(axis=1) == experts[task].argmax(axis=1)),
        }
        for metric, value in wanted.items():
            assert rows[on_clean, "learned", task, metric] == pytest.approx(value, abs=1e-4)
        right = 100 * np.mean(experts[task].argmax(axis=1) == labels)
        assert rows[on_clean, "individual", task, ACCURACY] == pytest.approx(right)
    settings = [row["setting"] for row in table("corruptions", f"learned-{corruption}")]
    assert set(settings) == {
        f"{corruption}/{each}/{on}"
        for each in suite.corrupt.severities
        for on in ("clean", "corrupted")
    }
    on_corrupted = f"{corruption}/{severity}/corrupted"
    entropies = {
        on: [rows[on, "learned", task, ENTROPY] for task in tasks]
        for on in (on_clean, on_corrupted)
    }
    assert entropies[on_clean] != entropies[on_corrupted]
    rules = {row["setting"] for row in table("corruptions", f"sum-{corruption}")}
    assert rules == {f"{corruption}/{each}/clean" for each in suite.corrupt.severities}
    name = f"sum-{corruption}"
    every, chosen = table("corruptions", name), suite.corrupt.severities[3:1:-1]
    some = tiny(corruptions={"methods": methods, "severities": list(chosen)})
    use(some)
    run_one(wiring.stages(some)[f"corruptions_sum@tiny-{corruption}-0"])
    settings = [f"{corruption}/{each}/clean" for each in chosen]
    wanted = [row for each in settings for row in every if row["setting"] == each]
    assert table("corruptions", name) == wanted


def predicted(suite: Suite, task: str, model: StateDict, corruption: str) -> np.ndarray:
    """What a model predicts of the corrupted images of the first severity: [N, C] float64."""
    device = set_up(suite.raw["compute"])
    encoder = open_encoder(suite.raw["model"], device)
    encoder.load_state_dict(model)
    head = open_heads("tiny", [task], device)[task]
    images = np.load(paths.corrupted(task, str(suite.size), corruption))[0]
    with torch.inference_mode():
        logits = head(encoder(torch.from_numpy(images)))
    return np.asarray(logits.double().softmax(dim=-1))


@pytest.mark.usefixtures("folder")
def test_every_pair_of_tasks_is_left_out_in_turn() -> None:
    methods = {"sum": {"rule": "task_arithmetic"}}
    unseen = {"splits": {"one": ["landuse"]}, "pairs": True, "methods": methods}
    suite = tiny("mnist", "letters", unseen=unseen)
    run_experiments(suite)
    tuned = {task: checkpoints.load(paths.finetuned("tiny", task, 0)) for task in suite.tasks}
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    pairs = list(combinations(enumerate(suite.tasks), 2))
    assert len(pairs) == 6
    for (i, one), (j, other) in pairs:
        rows = table("unseen", f"pair-{i}_{j}")
        assert {row["task"] for row in rows} == {one, other}
        assert {row["setting"] for row in rows} == {f"{one}+{other}"}
        merged = [tuned[task] for task in suite.tasks if task not in (one, other)]
        model = {
            name: weight + 0.3 * sum(each[name] - weight for each in merged)
            if weight.is_floating_point()
            else weight
            for name, weight in pretrained.items()
        }
        ours = [row for row in rows if row["method"] == "sum"]
        assert_measured(ours, suite, model, slice(None), (one, other))


def test_splits_are_of_tasks_and_leave_some_to_merge() -> None:
    splits = {"a": ["cars"], "b": ["x", "x"], "c": ["x", "y"], "d": ["x"]}
    methods = {"sum": {"rule": "task_arithmetic"}}
    settings = {"splits": splits, "pairs": True, "methods": methods}
    assert experiment_faults({"unseen": settings}, ["x", "y", "z"]) == [
        "experiments.unseen.pairs: leaves fewer than 2 tasks to merge; set false",
        "experiments.unseen.splits.a: 'cars' must be one of tasks: x, y, z",
        "experiments.unseen.splits.b = ('x', 'x'): each must stand once",
        "experiments.unseen.splits.c: leaves fewer than 2 tasks to merge; leave out fewer",
    ]


def assert_measured(
    rows: list[dict[str, Any]],
    suite: Suite,
    model: StateDict,
    images: slice,
    tasks: Sequence[str] = (),
) -> None:
    """Whether rows hold what a model reaches on some test images, computed anew, of all tasks
    unless these are named.
    """
    device = set_up(suite.raw["compute"])
    encoder = open_encoder(suite.raw["model"], device)
    encoder.load_state_dict(model)
    heads = open_heads("tiny", suite.tasks, device)
    for task in tasks or suite.tasks:
        files = paths.images(task, 32, "test"), paths.labels(task, 32, "test")
        part = LabeledImages.open(*files)
        data = LabeledImages(part.images[images], part.labels[images])
        found = {row["metric"]: row["value"] for row in rows if row["task"] == task}
        assert found[ACCURACY] == pytest.approx(accuracy(encoder, heads, {task: data})[task])
        with torch.inference_mode():
            shares = (
                heads[task](encoder(torch.from_numpy(np.array(data.images))))
                .softmax(dim=-1)
                .double()
            )
        entropy = float(-(shares * shares.log()).sum(dim=-1).mean())
        assert found[ENTROPY] == pytest.approx(entropy, abs=1e-4)


# --- over a kill --------------------------------------------------------------------------------


class Kept(PlainReporter):
    def progress(self, done: int, total: int, text: str = "") -> None:
        pass


@pytest.mark.parametrize("killed_at", range(5))
def test_a_kill_at_any_item_ends_with_the_same_rows(tmp_path: Path, killed_at: int) -> None:
    work = Work("x@y", {}, {}, report=Kept(tmp_path))
    items, made = [0.5, 1.5, 2.5, 3.5], []

    def rows_of(item: float) -> list[measuring.Row]:
        if len(made) == killed_at:
            made.append(None)
            raise KeyboardInterrupt
        made.append(item)
        return [{"value": item / 3}, {"value": item}]

    wanted = [row for item in items for row in ({"value": item / 3}, {"value": item})]
    if killed_at < len(items):
        with pytest.raises(KeyboardInterrupt):
            each_of(work, items, rows_of)
        before = len(made) - 1
        assert each_of(work, items, rows_of) == wanted
        assert made[before + 1 :] == items[before:]
    else:  # after the last, before the table is written: the last one is measured again
        assert each_of(work, items, rows_of) == wanted
        made.append(None)
        assert each_of(work, items, rows_of) == wanted
        assert made[-1:] == items[-1:]
