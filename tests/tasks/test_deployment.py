"""The experiment deployment: its conditions, its stages on tiny models, its page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deployment_inputs import DISTURBED, SETTINGS, write_deployment
from report_inputs import small_suite
from stage_runs import work_of
from test_experiments import assert_measured, folder, run_experiments, table, tiny
from test_stages import STEPS

from adamerge_core import checkpoints
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.corruptions import corrupt
from adamerge_core.vision.images import LabeledImages
from tasks import wiring
from tasks.experiments import deployment as deployment_stage
from tasks.experiments.deployment import (
    images_under,
    missing,
    paced_under,
    tailed,
    turns_under,
    vectors_under,
)
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.report.experiments import deployment
from tasks.running.work import PlainReporter
from tasks.suite.experiments.deployment import KINDS, Condition, read_condition
from tasks.suite.experiments.sections import experiment_faults
from tasks.suite.methods import AdaptMethod, parse_as
from tasks.suite.schema import Suite

__all__ = ["folder"]

TASKS = ("x", "y", "z")


def condition(kind: str, **given: Any) -> Condition:
    return read_condition({"kind": kind, **given})


# --- settings -------------------------------------------------------------------------------------


def test_every_kind_says_what_it_does() -> None:
    found = [
        condition("missing_classes", share=0.5),
        condition("long_tail", imbalance=50),
        condition("corrupted", corruption="gaussian_noise", severity=3),
        condition("other_images", task="x", images_of="y"),
        condition("no_images", task="x"),
        condition("wrong_expert", task="x", expert_of="y"),
        condition("batch", images_per_task=4),
        condition("order", order="one_task_a_step"),
    ]
    assert [each.kind for each in found] == list(KINDS)
    assert len({each.text for each in found}) == len(KINDS)


def test_faults_of_conditions_are_listed_at_once() -> None:
    conditions = {
        "undisturbed": {"kind": "batch", "images_per_task": 1},
        "a": {"kind": "nonsense"},
        "b": {"kind": ["batch"]},
        "c": {"kind": "missing_classes", "share": 1.5},
        "d": {"kind": "wrong_expert", "task": "x", "expert_of": "x"},
        "e": {"kind": "other_images", "task": "v", "images_of": "y"},
        "f": {"kind": "order", "order": "backwards"},
        "g": {"kind": "corrupted", "corruption": "rain", "severity": 6},
        "h": {"kind": "no_images", "tasks": "x"},
    }
    settings = {**SETTINGS["deployment"], "conditions": conditions}
    lines = experiment_faults({"deployment": settings}, TASKS)
    key = "experiments.deployment.conditions"
    assert [line.split(": ")[0].split(" = ")[0] for line in lines] == [
        f"{key}.undisturbed",
        f"{key}.a.kind",
        f"{key}.b.kind",
        f"{key}.c.share",
        f"{key}.f.order",
        f"{key}.g.corruption",
        f"{key}.g.severity",
        f"{key}.h.task",
        f"{key}.h.tasks",
        f"{key}.d",
        f"{key}.e.task",
    ]


def test_methods_can_be_disturbed_and_batches_come_out_even() -> None:
    methods = {
        "sum": {"rule": "task_arithmetic"},
        "learned": {"adapt": "layer_wise", "steps": 10, "images_per_task": 6},
    }
    conditions = {"even": {"kind": "batch", "images_per_task": 4}}
    settings = {**SETTINGS["deployment"], "conditions": conditions}
    assert experiment_faults({"deployment": settings | {"methods": methods}}) == []
    conditions["odd"] = {"kind": "batch", "images_per_task": 7}
    (line,) = experiment_faults({"deployment": settings | {"methods": methods}})
    assert line.startswith(
        "experiments.deployment.conditions.odd.images_per_task = 7: learned sees 60"
    )
    rules = {"sum": methods["sum"]}
    (line,) = experiment_faults({"deployment": settings | {"methods": rules}})
    assert line == "experiments.deployment.methods: has no adaptation to disturb; add one"
    taught = {"taught": {"adapt": "layer_wise", "objective": "cross_entropy"}}
    (line,) = experiment_faults({"deployment": settings | {"methods": taught}})
    assert "taught: learns from true labels" in line


# --- conditions -----------------------------------------------------------------------------------


def images(counts: tuple[int, ...] = (40, 40, 40)) -> dict[str, LabeledImages]:
    """Per task four classes, every image told by its pixels."""
    random = np.random.default_rng(0)
    return {
        task: LabeledImages(
            random.integers(0, 256, (count, 8, 8, 3), np.uint8), random.permutation(count) % 4
        )
        for task, count in zip(TASKS, counts, strict=True)
    }


def test_missing_classes_leave_all_images_of_the_others() -> None:
    seen = images()
    found = images_under(condition("missing_classes", share=0.5), seen, 3)
    for task, part in found.items():
        left = set(part.labels)
        assert len(left) == 2
        rows = np.isin(seen[task].labels, list(left))
        np.testing.assert_array_equal(part.images, seen[task].images[rows])
        np.testing.assert_array_equal(part.labels, seen[task].labels[rows])
    again = images_under(condition("missing_classes", share=0.5), seen, 3)
    assert all(np.array_equal(again[task].labels, found[task].labels) for task in TASKS)
    labels = np.array([5, 5, 7])
    assert len({*labels[missing(0.99, labels, np.random.default_rng(0))]}) == 1


def test_a_long_tail_falls_geometrically_and_loses_no_class() -> None:
    labels = np.repeat(np.arange(5), 100)
    kept = labels[tailed(16.0, labels, np.random.default_rng(1))]
    assert sorted(Counter(kept.tolist()).values(), reverse=True) == [100, 50, 25, 12, 6]
    assert len(np.unique(tailed(1e6, labels, np.random.default_rng(1)) // 100)) == 5
    one = np.zeros(7, int)
    assert len(tailed(50.0, one, np.random.default_rng(0))) == 7


def test_noise_is_an_image_s_own_and_leaves_the_rest() -> None:
    seen = images((3, 4, 5))
    noise = condition("corrupted", corruption="gaussian_noise", severity=2)
    found = images_under(noise, seen, 7)
    for task, part in found.items():
        np.testing.assert_array_equal(part.labels, seen[task].labels)
        for number, image in enumerate(seen[task].images):
            own = int(np.random.SeedSequence([7, number]).generate_state(1)[0])
            expected = corrupt(np.array(image), "gaussian_noise", 2, own)
            np.testing.assert_array_equal(part.images[number], expected)


def test_other_images_come_under_a_task_s_name() -> None:
    seen = images()
    found = images_under(condition("other_images", task="x", images_of="z"), seen, 0)
    assert list(found) == list(TASKS)
    assert (found["x"], found["y"]) == (seen["z"], seen["y"])


def test_turns_and_paces_show_every_task_as_many_images() -> None:
    entry = {"adapt": "layer_wise", "steps": 12, "images_per_task": 8, "batches_per_step": 1}
    method = parse_as(AdaptMethod, "it", {"it": entry})

    def seen(under: Condition | None) -> dict[str, int]:
        settings = paced_under(under, method, 3).settings
        turns = turns_under(under, TASKS, method.settings.steps) or [TASKS]
        taken = Counter(task for step in range(settings.steps) for task in turns[step % len(turns)])
        return {task: taken[task] * settings.images_per_task for task in TASKS}

    whole = dict.fromkeys(TASKS, 96)
    assert seen(None) == seen(condition("batch", images_per_task=16)) == whole
    assert seen(condition("batch", images_per_task=1)) == whole
    assert seen(condition("order", order="one_task_a_step")) == whole
    assert seen(condition("order", order="task_after_task")) == whole
    assert seen(condition("no_images", task="y")) == {**whole, "y": 0}
    after = turns_under(condition("order", order="task_after_task"), TASKS, 12)
    assert after == [["x"]] * 12 + [["y"]] * 12 + [["z"]] * 12
    turns = turns_under(condition("order", order="one_task_a_step"), TASKS, 12)
    assert turns == [["x"], ["y"], ["z"]]


def test_a_wrong_expert_stands_under_another_name() -> None:
    pretrained = {"a": torch.zeros(3)}
    tuned = {task: {"a": torch.full((3,), float(n))} for n, task in enumerate(TASKS, start=1)}
    vectors = TaskVectors.from_checkpoints(pretrained, tuned)
    found = vectors_under(condition("wrong_expert", task="y", expert_of="x"), vectors)
    assert found.task_names == TASKS
    assert found.layers["a"][:, 0].tolist() == [1, 1, 3]
    assert vectors.layers["a"][:, 0].tolist() == [1, 2, 3]
    assert vectors_under(condition("no_images", task="y"), vectors) is vectors


# --- stages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_every_condition_on_a_tiny_suite() -> None:
    """Undisturbed is what `unlabeled` has with all images; the other conditions are something
    else.
    """
    learned = {"adapt": "layer_wise", **STEPS}
    methods = {"sum": {"rule": "task_arithmetic"}, "learned": learned}
    conditions = {
        "same": {"kind": "batch", "images_per_task": STEPS["images_per_task"]},
        "missing": {"kind": "missing_classes", "share": 0.5},
        "noise": {"kind": "corrupted", "corruption": "gaussian_noise", "severity": 5},
        "other": {"kind": "other_images", "task": "landuse", "images_of": "stripes"},
        "none": {"kind": "no_images", "task": "landuse"},
        "wrong": {"kind": "wrong_expert", "task": "landuse", "expert_of": "stripes"},
        "ordered": {"kind": "order", "order": "one_task_a_step"},
    }
    suite = tiny(
        deployment={"conditions": conditions, "images": 100, "seed": 0, "methods": methods},
        unlabeled={"images": [0], "percent": [100], "methods": {"learned": learned}},
    )
    run_experiments(suite)

    def of(name: str, method: str = "learned") -> list[float]:
        return [r["value"] for r in table("deployment", name) if r["method"] == method]

    whole = [row["value"] for row in table("unlabeled", "learned-100_percent")]
    assert of("undisturbed") == whole
    assert of("same") == whole
    others = [tuple(of(name)) for name in conditions if name != "same"]
    assert len({*others, tuple(whole)}) == len(others) + 1
    in_models = [name for name in ("undisturbed", *conditions) if of(name, "sum")]
    assert in_models == ["undisturbed", "wrong"]
    wrong = checkpoints.load(paths.pretrained("tiny"))
    tuned = checkpoints.load(paths.finetuned("tiny", "stripes", 0))
    for name, weight in wrong.items():
        if weight.is_floating_point():
            wrong[name] = weight + 0.3 * 2 * (tuned[name] - weight)
    rows = [row for row in table("deployment", "wrong") if row["method"] == "sum"]
    assert_measured(rows, suite, wrong, slice(10, 20))
    for killed_at in (1, 4):
        check_a_kill(wiring.stages(suite)["deployment_ordered@tiny-0"], killed_at)


def check_a_kill(stage: Stage, killed_at: int) -> None:
    """Whether a stage that is killed and started again writes the same bytes."""
    (path,) = map(Path, stage.outs)
    whole = path.read_bytes()
    path.unlink()
    scratch = Path(f"scratch-{killed_at}")
    scratch.mkdir()
    with pytest.raises(KeyboardInterrupt):
        deployment_stage.run(replace(work_of(stage), report=Killed(scratch, killed_at)))
    assert not path.exists()
    deployment_stage.run(replace(work_of(stage), report=Killed(scratch, 10**9)))
    assert path.read_bytes() == whole


class Killed(PlainReporter):
    """Ends the stage where it tells of its progress."""

    def __init__(self, scratch: Path, at: int) -> None:
        super().__init__(scratch)
        self.left = at

    def progress(self, done: int, total: int, text: str = "") -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


# --- the page -------------------------------------------------------------------------------------


def show(root: Path, **levels: Any) -> Any:
    suite: Suite = small_suite(experiments=dict(SETTINGS))
    write_deployment(suite, root, **levels)
    return deployment.show(suite, root)


def test_findings_on_conditions_are_sorted_by_loss(tmp_path: Path) -> None:
    name = "Layer-wise AdaMerging"
    assert show(tmp_path).findings == [
        f"{name} reaches 70.0 ± 0.0 % undisturbed; changes in points: mixed up -26.3 "
        "(signs -27.0), noise -8.3 (signs -9.0).",
        f"Undisturbed {name} is 20.0 points above Task arithmetic (50.0 ± 0.0 %); it stays above "
        "under 1 of 2 conditions, and not under (in points): mixed up -1.0.",
    ]
    better = {**DISTURBED, "noise": {"learned": 30.0}, "mixed_up": {"sum": 45.0, "learned": 71.0}}
    changed = show(tmp_path, disturbed=better).findings
    assert "changes in points: noise -40.3 (signs -41.0), mixed up +0.7 (signs +0.0)." in changed[0]
    assert "not under (in points): noise -20.3." in changed[1]
    fine = {**DISTURBED, "mixed_up": {"sum": 45.0, "learned": 69.0}}
    assert (
        show(tmp_path, disturbed=fine)
        .findings[1]
        .endswith("it stays above under each of the 2 conditions.")
    )


def test_a_finding_names_the_costliest_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_NAMED", 0)
    (said, *_) = show(tmp_path).findings
    assert said.endswith("changes in points: the other 2 from -26.3 to -8.3.")
    monkeypatch.setattr(deployment, "_NAMED", 1)  # one more is not worth a sum
    (said, *_) = show(tmp_path).findings
    assert said.endswith("mixed up -26.3 (signs -27.0), noise -8.3 (signs -9.0).")


def test_a_change_within_its_spread_over_seeds_is_not_shown(tmp_path: Path) -> None:
    """A spread of the seeds that is the undisturbed's too takes nothing from a change."""
    assert "not shown" not in show(tmp_path, spread=8.0).findings[0]
    assert "not shown" not in show(tmp_path, harm=-6.0).findings[0]
    said = show(tmp_path, harm=-20.0).findings[0]
    assert said.endswith(
        "changes in points: mixed up -16.3 (signs -17.0); not shown, as the spread over seeds is "
        "as large: noise +1.7."
    )


def test_the_table_of_costs_is_sorted_and_holds_against_the_rule(tmp_path: Path) -> None:
    costs, tasks = show(tmp_path).tables
    assert costs.title == "What each condition costs: Layer-wise AdaMerging"
    assert [line.names for line in costs.lines] == [
        ("undisturbed", "nothing"),
        ("mixed up", "the model of mnist handed in as that of signs"),
        ("noise", "gaussian noise of severity 3 in the images adapted on alone"),
    ]
    assert costs.columns == ("average", "change", "worst task", "against Task arithmetic")
    assert [[cell.text for cell in line.cells] for line in costs.lines] == [
        ["70.0", "+0.0", "", "+20.0"],
        ["43.7", "-26.3", "signs -27.0", "-1.0"],
        ["61.7", "-8.3", "signs -9.0", "+11.7"],
    ]
    rows = {line.names: [cell.text for cell in line.cells] for line in tasks.lines}
    assert rows["noise", "Task arithmetic"] == rows["undisturbed", "Task arithmetic"]
    assert rows["noise", "Layer-wise AdaMerging"] == ["61.0", "62.0", "62.0", "61.7"]
