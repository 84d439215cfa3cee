"""The experiment number_of_tasks: its subsets, its stages on tiny models, its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deployment_inputs import KEPT, SETTINGS, write_number_of_tasks
from report_inputs import SEEDS, TASKS, small_suite
from test_experiments import folder, run_experiments, table, tiny
from test_stages import STEPS

from adamerge_core import checkpoints
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.experiments import number_of_tasks
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.hits import write_hits
from tasks.shared.long_tables import ACCURACY
from tasks.suite.experiments.number_of_tasks import subsets_of
from tasks.suite.experiments.sections import experiment_faults
from tasks.suite.schema import Suite
from tasks.wiring import stages

__all__ = ["folder"]

EIGHT = list("abcdefgh")


# --- subsets --------------------------------------------------------------------------------------


def test_subsets_differ_and_are_the_same_every_time() -> None:
    for count in range(2, 9):
        found = subsets_of(EIGHT, count, 5, seed=1)
        assert len(set(found.values())) == len(found) == min(5, 1 if count == 8 else 8)
        assert list(found) == [f"{count}_tasks_{n}" for n in range(1, len(found) + 1)]
        for subset in found.values():
            assert len(subset) == len(set(subset)) == count
            assert list(subset) == sorted(subset)
        assert subsets_of(EIGHT, count, 5, seed=1) == found
    assert subsets_of(EIGHT, 4, 5, seed=1) != subsets_of(EIGHT, 4, 5, seed=2)
    assert list(subsets_of(EIGHT, 4, 9, 1).values())[:5] == list(
        subsets_of(EIGHT, 4, 5, 1).values()
    )


def test_all_subsets_are_drawn_where_there_are_no_more() -> None:
    assert len(subsets_of(EIGHT, 7, 200, 0)) == 8
    assert subsets_of(EIGHT, 8, 200, 0) == {"8_tasks_1": tuple(EIGHT)}


def test_counts_are_of_the_tasks_there_are() -> None:
    settings = {**SETTINGS["number_of_tasks"], "counts": [2, 9, 2]}
    assert experiment_faults({"number_of_tasks": settings}, EIGHT) == [
        "experiments.number_of_tasks.counts: 9 is more than the 8 tasks; give at most so many",
        "experiments.number_of_tasks.counts = (2, 9, 2): each must stand once",
    ]
    few = {**settings, "counts": [1], "subsets": 0, "images": 0}
    begins = [line.split(" = ")[0] for line in experiment_faults({"number_of_tasks": few}, EIGHT)]
    key = "experiments.number_of_tasks"
    assert begins == [f"{key}.{name}" for name in ("counts.0", "counts", "subsets", "images")]


# --- stages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_each_subset_is_merged_and_measured_alone() -> None:
    methods = {"sum": {"rule": "task_arithmetic"}, "learned": {"adapt": "layer_wise", **STEPS}}
    settings = {"counts": [2, 3], "subsets": 2, "seed": 0, "images": 13, "methods": methods}
    suite = tiny("mnist", number_of_tasks=settings)
    run_experiments(suite)
    device = set_up(suite.raw["compute"])
    encoder = open_encoder(suite.raw["model"], device)
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    for count in (2, 3):
        for subset, merged in subsets_of(suite.tasks, count, 2, 0).items():
            rows = [r for r in table("number_of_tasks", subset) if r["metric"] == ACCURACY]
            assert [(r["method"], r["task"]) for r in rows] == [
                (method, task) for method in methods for task in merged
            ]
            tuned = [checkpoints.load(paths.finetuned("tiny", task, 0)) for task in merged]
            encoder.load_state_dict(
                {
                    name: weight + 0.3 * sum(each[name] - weight for each in tuned)
                    if weight.is_floating_point()
                    else weight
                    for name, weight in pretrained.items()
                }
            )
            data = open_split(merged, "32", "test")
            first = {
                task: type(part)(part.images[:13], part.labels[:13]) for task, part in data.items()
            }
            expected = accuracy(encoder, open_heads("tiny", merged, device), first)
            assert [r["value"] for r in rows if r["method"] == "sum"] == pytest.approx(
                [expected[task] for task in merged]
            )


def test_a_stage_a_number_of_tasks_writes_a_file_a_subset() -> None:
    suite = small_suite(experiments=dict(SETTINGS))
    found = {n: s for n, s in stages(suite).items() if n.startswith("number_of_tasks")}
    assert [len(stage.outs) for stage in found.values()] == [2, 2, 1, 1]
    assert {path for stage in found.values() for path in stage.outs} == {
        path.as_posix() for path in number_of_tasks.reads(suite) if path.suffix == ".csv"
    }
    key = "experiments.number_of_tasks"
    assert all(f"{key}.counts" not in stage.params for stage in found.values())


# --- the page -------------------------------------------------------------------------------------


def findings(root: Path, individual: float = 0.5, **levels: object) -> list[str]:
    suite = suite_of()
    write_number_of_tasks(suite, root, **levels)  # type: ignore[arg-type]
    write_individual(suite, root, individual)
    return list(number_of_tasks.show(suite, root).findings)


def suite_of() -> Suite:
    return small_suite(experiments=dict(SETTINGS))


def write_individual(suite: Suite, root: Path, share: float) -> None:
    """Individual models right on a share of the first 400 images, and on none of 400 others."""
    right = np.arange(800) < 400 * share
    hits = {(protocol, task): right for protocol in PROTOCOLS for task in suite.tasks}
    for seed in suite.seeds:
        write_hits(root / paths.hits(suite.name, "individual", seed), hits)


def test_findings_are_shares_of_the_individual_models(tmp_path: Path) -> None:
    kept = findings(tmp_path, apart=0.0)
    arithmetic = (
        "Task arithmetic keeps 80.0 ± 0.0 % of the individual models' accuracy with 2 tasks"
    )
    assert kept[0] == (
        f"{arithmetic} and 60.0 ± 0.0 % with 3, 20.0 points below 2 tasks (80.0 ± 0.0 %)."
    )
    assert kept[2:] == [
        "With 2 tasks Layer-wise AdaMerging keeps 84.0 ± 0.0 %, 4.0 points above Task arithmetic "
        "(80.0 ± 0.0 %).",
        "With 3 tasks Layer-wise AdaMerging keeps 78.0 ± 0.0 %, 18.0 points above Task arithmetic "
        "(60.0 ± 0.0 %).",
    ]
    half = findings(tmp_path, individual=1.0, apart=0.0)
    assert "keeps 40.0 ± 0.0 % of the individual" in half[0]


def test_a_lead_that_varies_as_much_over_subsets_is_not_shown(tmp_path: Path) -> None:
    """What is learned gains 4 points more on the second subset, than on the first."""
    sure = findings(tmp_path, apart=1.0)
    assert "not shown" not in sure[2]
    changed = findings(tmp_path, apart=1.0, kept={**KEPT, "learned": {2: 39.9, 3: 39.0}})
    assert changed[2].endswith("not shown: over the subsets the difference varies as much.")
    assert "not shown" not in changed[3]


def test_the_tables_have_a_column_a_count_and_a_row_a_subset(tmp_path: Path) -> None:
    suite = suite_of()
    write_number_of_tasks(suite, tmp_path)
    write_individual(suite, tmp_path, 0.5)
    shown = number_of_tasks.show(suite, tmp_path)
    counts, subsets = shown.tables
    assert counts.columns == ("2 tasks", "3 tasks")
    assert [line.cells[1].text for line in counts.lines] == ["60.0", "78.0"]
    assert [line.cells[0].text for line in counts.lines] == ["81.0", "86.0"]
    assert [line.cells[0].best for line in counts.lines] == [False, True]
    assert [line.names[0] for line in subsets.lines] == ["2", "2", "3"]
    assert subsets.lines[2].names[1] == ", ".join(TASKS)
    assert [line.cells[0].text for line in subsets.lines] == ["80.0", "82.0", "60.0"]
    (chart,) = shown.figures[0].panels.values()
    assert [list(series.x) for series in chart.series] == [[2, 3]] * 2  # type: ignore[union-attr]
    assert f"seeds {', '.join(map(str, SEEDS))}" in counts.text
