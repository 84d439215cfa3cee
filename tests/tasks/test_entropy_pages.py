"""The pages on entropy and loss, on labels and on cost, on made-up numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_inputs import LABELS, MACHINE, SURROGATE, experiments, write_experiments
from report_inputs import TASKS, small_suite, write_inputs

from tasks.report.charts import LineChart
from tasks.report.experiments import cost, labels, surrogate
from tasks.suite.schema import Suite


@pytest.fixture
def suite() -> Suite:
    return small_suite(experiments=experiments())


def test_without_experiments_there_is_no_page_of_theirs() -> None:
    assert [page.reads(small_suite()) for page in (surrogate, labels, cost)] == [[]] * 3


# --- surrogate ------------------------------------------------------------------------------------


def correlated(suite: Suite, root: Path, spread: float = 0.0, **moments: Any) -> list[str]:
    write_experiments(suite, root, surrogate=SURROGATE | moments, spread=spread)
    return list(surrogate.show(suite, root).findings)


def test_findings_on_the_correlation_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    name = "Layer-wise AdaMerging"
    assert correlated(suite, tmp_path) == [
        "Fine-tuning ends at a rank correlation of entropy and loss of 0.70 ± 0.00 over the images "
        "of all tasks, 0.20 above the pretrained model (0.50 ± 0.00); it is lowest on mnist, "
        "0.50 ± 0.00.",
        "Fine-tuning ends at a mean entropy of 0.20 ± 0.00 nats, 0.80 nats below the pretrained "
        "model (1.00 ± 0.00 nats), and at a mean loss of 0.50 ± 0.00 nats, 1.50 nats below the "
        "pretrained model (2.00 ± 0.00 nats).",
        f"{name} ends at a rank correlation of entropy and loss of 0.60 ± 0.00 over the images of "
        "all tasks, 0.20 below its start (0.80 ± 0.00); it is lowest on mnist, 0.40 ± 0.00.",
        f"{name} ends at a mean entropy of 0.30 ± 0.00 nats, 0.60 nats below its start "
        "(0.90 ± 0.00 nats), and at a mean loss of 1.40 ± 0.00 nats, 0.10 nats below its start "
        "(1.50 ± 0.00 nats).",
    ]
    _, _, rho, loss = correlated(suite, tmp_path, adapted=(0.9, 0.3, 1.8))
    assert "0.90 ± 0.00 over the images of all tasks, 0.10 above its start" in rho
    assert "1.80 ± 0.00 nats, 0.30 nats above its start" in loss
    _, _, rho, _ = correlated(suite, tmp_path, adapted=(0.79, 0.3, 1.8), spread=2.0)
    assert "0.01 below its start (0.81 ± 0.01), not shown: the spread over seeds is as large" in rho


def test_moments_have_rows_and_panels(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    shown = surrogate.show(suite, tmp_path)
    correlations, means = shown.tables
    assert correlations.columns == (*TASKS, "all tasks")
    rows = [(*line.names, line.cells[0].text, line.cells[-1].text) for line in correlations.lines]
    label = "Layer-wise AdaMerging"
    assert rows == [
        ("Fine-tuning", "the pretrained model", "0.50", "0.50"),
        ("Fine-tuning", "after 30 % of the steps", "0.60", "0.60"),
        ("Fine-tuning", "fine-tuned", "0.70", "0.70"),
        (label, "start", "0.80", "0.80"),
        (label, "after 50 % of the steps", "0.70", "0.70"),
        (label, "end", "0.60", "0.60"),
    ]
    assert [cell.text for cell in means.lines[-1].cells] == ["0.30", "1.40", "60.0"]
    (figure,) = shown.figures
    assert list(figure.panels) == [
        *("pretrained", "fine-tuning, 30 %", "fine-tuned"),
        *("start of adapting", "adapting, 50 %", "adapted"),
    ]
    panel = figure.panels["adapted"]
    assert isinstance(panel, LineChart)
    assert [line.label for line in panel.series] == list(TASKS)
    assert panel.series[0].x == pytest.approx([0.3 * n / 5 for n in range(1, 11)])
    assert panel.series[0].y == pytest.approx([1.4 * n / 5 for n in range(1, 11)])


# --- labels ---------------------------------------------------------------------------------------


def by_labels(suite: Suite, root: Path, spread: float = 0.0, **levels: float) -> list[str]:
    write_experiments(suite, root, labels=LABELS | levels, spread=spread)
    return list(labels.show(suite, root).findings)


def test_findings_on_labels_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    name = "Layer-wise AdaMerging"
    assert by_labels(suite, tmp_path) == [
        f"{name} reaches 60.0 ± 0.0 % by entropy, 10.0 points above its start (50.0 ± 0.0 %).",
        f"{name} by experts' labels in its place reaches 64.0 ± 0.0 %, 4.0 points above entropy "
        "(60.0 ± 0.0 %).",
        f"{name} by true labels in its place reaches 70.0 ± 0.0 %, 10.0 points above entropy "
        "(60.0 ± 0.0 %).",
        f"{name} by entropy gains 10.0 of the 20.0 points that true labels add to its start: 50 %.",
    ]
    first, experts, *_, share = by_labels(suite, tmp_path, entropy=45.0)
    assert "45.0 ± 0.0 % by entropy, 5.0 points below its start" in first
    assert "19.0 points above entropy (45.0 ± 0.0 %)" in experts
    assert share.endswith("gains -5.0 of the 20.0 points that true labels add to its start: -25 %.")
    unclear = by_labels(suite, tmp_path, labels=51.0, spread=2.0)[-1]
    assert unclear == f"{name}: that true labels add anything to its start is not shown."
    assert by_labels(suite, tmp_path, labels=50.0)[-1] == unclear


def test_a_comparison_has_rows_and_a_line(suite: Suite, tmp_path: Path) -> None:
    write_experiments(suite, tmp_path)
    shown = labels.show(suite, tmp_path)
    (table,) = shown.tables
    assert [(line.names[1], line.cells[-1].text) for line in table.lines] == [
        ("nothing (its start)", "50.0"),
        ("entropy", "60.0"),
        ("experts' labels", "64.0"),
        ("true labels", "70.0"),
    ]
    assert [line.cells[-1].best for line in table.lines] == [False, False, False, True]
    (chart,) = shown.figures[0].panels.values()
    assert isinstance(chart, LineChart)
    assert chart.names == [line.names[1] for line in table.lines]
    assert [(each.x, each.y) for each in chart.series] == [([0, 1, 2, 3], [50.0, 60.0, 64.0, 70.0])]


# --- cost -----------------------------------------------------------------------------------------


def costs(suite: Suite, root: Path, levels: dict[str, float], **changes: float) -> list[str]:
    write_inputs(suite, root, levels)
    write_experiments(suite, root, **changes)  # type: ignore[arg-type]
    return list(cost.show(suite, root).findings)


def test_findings_on_cost_follow_the_numbers(suite: Suite, tmp_path: Path) -> None:
    levels = {"task_arithmetic": 50.0, "layer_wise_adamerging": 70.0}
    found = costs(suite, tmp_path, levels, seconds=120.0)
    assert [line.split(" takes ")[0] for line in found][1:3] == [
        "Task arithmetic",
        "Task arithmetic, best scaling",
    ]
    (layer_wise,) = [line for line in found if line.startswith("Layer-wise AdaMerging takes")]
    beginning, _, end = layer_wise.partition(", and reaches ")
    assert beginning == (
        "Layer-wise AdaMerging takes 120.00 ± 0.00 seconds, 0.75 ± 0.00 GiB of memory and 24 "
        "learned numbers"
    )
    points = float(end.split("points above Task arithmetic")[0].split()[-1])
    assert points == pytest.approx(20.0, abs=0.5)
    assert end.endswith(f": {points / 2:.1f} points a minute.")
    (plain,) = [line for line in found if line.startswith("Task arithmetic takes")]
    assert "2.00 ± 0.00 seconds, 0.75 ± 0.00 GiB of memory, and reaches 50." in plain
    assert "above" not in plain
    (ties,) = [line for line in found if line.startswith("Ties-Merging takes")]
    assert "points above Task arithmetic" in ties
    assert "a minute" not in ties
    levels["layer_wise_adamerging"] = 40.0
    found = costs(suite, tmp_path, levels, seconds=30.0)
    (layer_wise,) = [line for line in found if line.startswith("Layer-wise AdaMerging takes")]
    assert "takes 30.00 ± 0.00 seconds" in layer_wise
    assert "points below Task arithmetic" in layer_wise
    assert "a minute" not in layer_wise


def test_the_table_and_the_figure_of_costs(suite: Suite, tmp_path: Path) -> None:
    write_inputs(suite, tmp_path)
    shown = cost.show(suite, tmp_path)
    (table,) = shown.tables
    assert MACHINE in table.text
    assert "median of 3 steps" in table.text
    line = next(line for line in table.lines if line.names[0] == "Layer-wise AdaMerging")
    assert [cell.text for cell in line.cells][:-1] == [
        *("24", "60.00", "0.75", "1200", "1000", "2.50"),
    ]
    assert line.names[1] == "unlabeled images"
    (chart,) = shown.figures[0].panels.values()
    assert isinstance(chart, LineChart)
    assert chart.x_scale == "log"
    assert [len(each.x) for each in chart.series] == [1] * len(suite.merging)
    assert "Individual models" in [level.label for level in chart.levels]
