"""The pages of experiments, on made-up numbers: what they show and find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_inputs import AMOUNTS, MISLED, RULES, UNSEEN, experiments, write_experiments
from report_inputs import SEEDS, TASKS, lines_of, small_suite, write_inputs

from tasks.graph import paths
from tasks.report.__main__ import write
from tasks.report.charts import LineChart
from tasks.report.experiments import corruptions, sensitivity, unlabeled, unseen
from tasks.suite.schema import Suite

IN_COLUMN_TASK = {"surrogate": {*TASKS, "all tasks"}, "cost": {"all tasks"}}
"""Of the experiments that measure what is of no single task."""


@pytest.fixture
def suite() -> Suite:
    return small_suite(experiments=experiments())


def test_the_report_has_a_page_an_experiment_and_its_data(suite: Suite, tmp_path: Path) -> None:
    write_inputs(suite, tmp_path)
    write(suite, tmp_path)
    folder = tmp_path / paths.report(suite.name)
    for name in suite.studied:
        page = (folder / f"{name}.html").read_text(encoding="utf-8")
        seeds = " ".join(map(str, SEEDS))
        assert f"adamerge experiment run {name} --suite mini --seeds {seeds}\n" in page
        assert f"adamerge lineage data/suites/mini/report/{name}.csv" in page
        assert f"<code>{name}.csv</code>" in page
        assert f'<a href="{name}.html">' in (folder / "index.html").read_text(encoding="utf-8")
        lines = lines_of(folder / f"{name}.csv")
        assert list(lines[0]) == ["setting", "method", "seed", "task", "metric", "value"]
        assert {line["seed"] for line in lines} == set(map(str, SEEDS))
        measured_on = IN_COLUMN_TASK.get(name, set(TASKS))
        if name == "corruptions":
            measured_on = set(suite.corrupt.tasks)
        assert {line["task"] for line in lines} == measured_on
        assert f"adamerge experiment run {name}" in (folder / "report.md").read_text("utf-8")


def test_without_experiments_there_is_no_page_of_theirs() -> None:
    pages = (sensitivity, unlabeled, unseen, corruptions)
    assert [page.reads(small_suite()) for page in pages] == [[]] * len(pages)


# --- sensitivity ---------------------------------------------------------------------------------


def scaling_finding(suite: Suite, root: Path, **levels: Any) -> list[str]:
    write_experiments(suite, root, **levels)
    return list(sensitivity.show(suite, root).findings)


def test_findings_on_the_scaling_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    """The best scaling, what entropy takes, and by how much an adaptation is above."""
    first = scaling_finding(suite, tmp_path)
    assert first[:2] == [
        "Task arithmetic is best at a scaling of 0.3, with 60.0 ± 0.0 %; the lowest entropy, for "
        "which no label is read, takes 1.0: 30.0 ± 0.0 %, 30.0 points below the scaling 0.3 "
        "(60.0 ± 0.0 %).",
        "Ties-Merging is best at a scaling of 1.0, with 55.0 ± 0.0 %; the lowest entropy, for "
        "which no label is read, takes the same.",
    ]
    layer_wise = [line for line in first if line.startswith("Layer-wise AdaMerging reaches")]
    assert layer_wise == [
        "Layer-wise AdaMerging reaches 70.0 ± 0.0 %, 10.0 points above Task arithmetic at its best "
        "scaling (60.0 ± 0.0 %)."
    ]
    rules = {"task_arithmetic": {0.0: (40, 2.0), 0.3: (60, 1.0), 1.0: (30, 1.5)}}
    changed = scaling_finding(suite, tmp_path, rules=rules, adapted=58.0)
    assert changed[0].endswith("which no label is read, takes the same.")
    assert any("58.0 ± 0.0 %, 2.0 points below Task arithmetic" in line for line in changed)


def test_a_lead_within_the_spread_over_seeds_is_not_shown(suite: Suite, tmp_path: Path) -> None:
    found = scaling_finding(suite, tmp_path, adapted=62.0, spread=8.0)
    (line,) = [line for line in found if line.startswith("Layer-wise AdaMerging reaches")]
    assert line.endswith("not shown: the spread over seeds is as large.")


def test_the_tables_mark_what_was_best_and_what_entropy_took(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    chosen, every = sensitivity.show(suite, tmp_path).tables
    assert [line.names for line in chosen.lines][:4] == [
        ("Task arithmetic", "0.3, best by accuracy"),
        ("Task arithmetic", "1.0, lowest entropy"),
        ("Ties-Merging", "1.0, best by accuracy"),
        ("Ties-Merging", "1.0, lowest entropy"),
    ]
    assert every.columns == ("0.0", "0.3", "1.0")
    assert [[cell.best for cell in line.cells] for line in every.lines] == [
        [False, True, False],
        [False, False, True],
        [False, False, True],
        [False, False, True],
    ]


def test_a_rule_has_no_number_where_it_was_not_tried(suite: Suite, tmp_path: Path) -> None:
    farther = dict(RULES["ties_merging"]) | {2.0: (57.0, 0.4), 0.5: (41.0, 0.9)}
    write_experiments(suite, tmp_path, rules={"ties_merging": farther})
    _, every = sensitivity.show(suite, tmp_path).tables
    assert every.columns == ("0.0", "0.3", "0.5", "1.0", "2.0")
    texts = [[cell.text for cell in line.cells] for line in every.lines]
    assert texts == [
        ["40.0", "60.0", "", "30.0", ""],
        ["2.00", "1.00", "", "0.50", ""],
        ["40.0", "50.0", "41.0", "55.0", "57.0"],
        ["2.00", "1.00", "0.90", "0.50", "0.40"],
    ]


# --- unlabeled ------------------------------------------------------------------------------------


def test_findings_on_the_amount_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    name = "Layer-wise AdaMerging"
    assert unlabeled.show(suite, tmp_path).findings == [
        f"{name} with 1 image of each task reaches 52.0 ± 0.0 %, 2.0 points above 0 images "
        "(50.0 ± 0.0 %).",
        f"{name} with 16 images of each task reaches 60.0 ± 0.0 %, 10.0 points above 0 images "
        "(50.0 ± 0.0 %).",
        f"{name} with 100 % of each task reaches 61.0 ± 0.0 %, 11.0 points above 0 images "
        "(50.0 ± 0.0 %).",
        f"{name} with 100 % of each task is 1.0 points above 16 images (60.0 ± 0.0 %).",
        "RegMean with 16 images of each task reaches 58.0 ± 0.0 %, 14.0 points above 1 image "
        "(44.0 ± 0.0 %).",
        "RegMean with 100 % of each task reaches 59.0 ± 0.0 %, 15.0 points above 1 image "
        "(44.0 ± 0.0 %).",
        "RegMean with 100 % of each task is 1.0 points above 16 images (58.0 ± 0.0 %).",
    ]
    write_experiments(suite, tmp_path, amounts=AMOUNTS | {"100_percent": 57.0}, spread=2.0)
    third, last = unlabeled.show(suite, tmp_path).findings[2:4]
    assert "58.0 ± 1.4 %, 7.0 points above 0 images (51.0 ± 1.4 %)" in third
    assert "3.0 points below 16 images" in last
    assert not last.endswith("as large.")
    write_experiments(suite, tmp_path, amounts=AMOUNTS, spread=2.0)
    last = unlabeled.show(suite, tmp_path).findings[3]
    assert last.endswith("not shown: the spread over seeds is as large.")


def test_the_table_has_a_row_an_amount(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    (table,) = unlabeled.show(suite, tmp_path).tables
    amounts = ["0 images", "1 image", "16 images", "100 %"]
    assert [line.names for line in table.lines] == [
        *(("Layer-wise AdaMerging", amount) for amount in amounts),
        *(("RegMean", amount) for amount in amounts[1:]),
    ]
    averages = ["50.0", "52.0", "60.0", "61.0", "44.0", "58.0", "59.0"]
    assert [line.cells[-1].text for line in table.lines] == averages


def test_the_line_of_a_rule_begins_with_the_first_image(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    (figure,) = unlabeled.show(suite, tmp_path).figures
    assert figure.panels is not None
    (chart,) = figure.panels.values()
    assert isinstance(chart, LineChart)
    assert [list(series.x) for series in chart.series] == [[0, 1, 2, 3], [1, 2, 3]]
    assert chart.names is not None
    assert list(chart.names) == ["0 images", "1 image", "16 images", "100 %"]


# --- unseen ---------------------------------------------------------------------------------------


def test_findings_on_tasks_left_out_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    name = "Zero-shot (pretrained) (40.0 ± 0.0 %)"
    assert unseen.show(suite, tmp_path).findings == [
        "On what is left out (mnist), Task arithmetic reaches 35.0 ± 0.0 %, 5.0 points below "
        f"{name}.",
        "On what is left out (mnist), Layer-wise AdaMerging reaches 45.0 ± 0.0 %, 5.0 points "
        f"above {name}; it is 10.0 points above Task arithmetic (35.0 ± 0.0 %).",
    ]
    write_experiments(suite, tmp_path, unseen=UNSEEN | {"learned": 36.0}, spread=2.0)
    *_, last = unseen.show(suite, tmp_path).findings
    beside_pretrained, beside_the_rule = last.split("; it is ")
    assert "4.0 points below" in beside_pretrained
    assert "not shown" not in beside_pretrained
    assert beside_the_rule.startswith("1.0 points above Task arithmetic")
    assert beside_the_rule.endswith("not shown: the spread over seeds is as large.")


def test_a_split_has_a_table_of_the_tasks_left_out(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    (table,) = unseen.show(suite, tmp_path).tables
    assert table.title == "Left out: mnist"
    assert table.columns == ("mnist", "average")
    assert "Merged are signs, letters;" in table.text
    assert [line.cells[0].text for line in table.lines] == ["40.0", "35.0", "45.0"]
    assert [line.cells[0].best for line in table.lines] == [False, False, True]


def test_findings_on_pairs_follow_the_numbers(tmp_path: Path) -> None:
    unseen_of = experiments()["unseen"] | {"pairs": True}
    suite = small_suite(tasks=[*TASKS, "photos"], experiments={"unseen": unseen_of})
    write_experiments(suite, tmp_path)
    found = unseen.show(suite, tmp_path)
    assert found.findings[2:] == [
        "Over all 6 pairs left out, Task arithmetic reaches 35.0 ± 0.0 %, 5.0 points below "
        "Zero-shot (pretrained) (40.0 ± 0.0 %); it is above it on 0 of them.",
        "Over all 6 pairs left out, Layer-wise AdaMerging reaches 45.0 ± 0.0 %, 5.0 points above "
        "Zero-shot (pretrained) (40.0 ± 0.0 %); it is above it on 6 of them; it is 10.0 points "
        "above Task arithmetic (35.0 ± 0.0 %).",
    ]
    table = found.tables[-1]
    assert [[cell.text for cell in line.cells] for line in table.lines] == [
        ["0", "40.0"],
        ["0", "35.0"],
        ["6", "45.0"],
    ]
    write_experiments(suite, tmp_path, unseen=UNSEEN | {"learned": 39.0})
    assert "; it is above it on 0 of them;" in unseen.show(suite, tmp_path).findings[-1]


# --- corruptions ----------------------------------------------------------------------------------

LEARNED, GUARD = "Layer-wise AdaMerging", "Layer-wise, self-labelling"
ON_CORRUPTED = "adapted on corrupted images"


def corruption_findings(suite: Suite, root: Path, **levels: Any) -> list[str]:
    write_experiments(suite, root, **levels)
    return list(corruptions.show(suite, root).findings)


def test_findings_on_corruptions_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    """Averages, where adapting misleads, whether the guard helps there, and what goes with it."""
    found = corruption_findings(suite, tmp_path)
    assert found[0] == (  # 20 places: 18 at 55, one at 30, one at 44
        f"Over the 2 corruptions, {LEARNED}, {ON_CORRUPTED} reaches 53.2 ± 0.0 %, 3.2 points above "
        "Task arithmetic (50.0 ± 0.0 %)."
    )
    assert found[4] == (
        f"{LEARNED}, {ON_CORRUPTED}, lies 5 points or more below Task arithmetic at 2 of 20 "
        "places, 2 of them on signs and 2 under contrast; the furthest, by 20.0 points, on signs "
        "under contrast of severity 5."
    )
    assert found[5].endswith("at 0 of 20 places.")
    assert found[6] == (
        f"Where {LEARNED}, {ON_CORRUPTED}, misleads, it lies -13.0 points from Task arithmetic on "
        f"average and {GUARD}, {ON_CORRUPTED}, +3.0; elsewhere +5.0 and +7.0."
    )
    assert found[7].endswith(
        "agreement with the experts 1.00, evenness 1.00, entropy 1.00; "
        "agreement with the experts tells the most."
    )
    calm = corruption_findings(suite, tmp_path, misled={})
    assert calm[0].startswith(f"Over the 2 corruptions, {LEARNED}, {ON_CORRUPTED} reaches 55.0")
    assert calm[4].endswith("at 0 of 20 places.")
    assert not [line for line in calm if "misleads" in line]
    at = ("learned", "motion_blur", 2, "letters")
    moved = corruption_findings(suite, tmp_path, misled=MISLED | {at: (40.0, 0.3, 0.9, 80.0)})
    assert "at 3 of 20 places, 2 of them on signs and 2 under contrast" in moved[4]
    assert "agreement with the experts 0.33, evenness 0.79, entropy 1.00; entropy" in moved[7]


def test_a_lead_under_corruption_within_the_spread_is_not_shown(
    suite: Suite, tmp_path: Path
) -> None:
    found = corruption_findings(suite, tmp_path, spread=6.0)
    assert found[0].endswith("not shown: the spread over seeds is as large.")


def test_the_tables_of_corruptions_have_the_numbers_of_the_findings(
    suite: Suite, tmp_path: Path
) -> None:
    write_experiments(suite, tmp_path)
    tables = {table.name: table for table in corruptions.show(suite, tmp_path).tables}
    assert tables["by_corruption"].columns == ("motion blur", "contrast", "average")
    assert [line.cells[-1].text for line in tables["by_corruption"].lines][:2] == ["50.0", "53.2"]
    assert tables["by_severity"].columns[:2] == ("clean", "severity 1")
    worst = tables["misled"].lines[0]
    assert worst.names[1:] == ("contrast, severity 5", "signs")
    assert [cell.text for cell in worst.cells] == ["-20.0", "-20.0", "-0.50", "-0.50"]
    assert len(tables["misled"].lines) == 3
    assert [[c.text for c in line.cells] for line in tables["guards"].lines] == [
        ["-13.0", "+5.0"],
        ["+3.0", "+7.0"],
    ]
    settings = experiments()
    settings["corruptions"]["severities"] = [5, 1]
    some = small_suite(experiments=settings)
    content = corruptions.show(some, tmp_path)
    tables = {table.name: table for table in content.tables}
    assert tables["by_severity"].columns == ("clean", "severity 5", "severity 1")
    assert "severities 5, 1 and" in tables["by_corruption"].text
    assert "at 1 of 8 places" in content.findings[4]
    write_experiments(suite, tmp_path, misled={})
    names = {table.name for table in corruptions.show(suite, tmp_path).tables}
    assert names == {"by_corruption", "by_severity", "signs"}
