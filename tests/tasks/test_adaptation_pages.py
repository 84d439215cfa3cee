"""The pages on adaptation and on the choice of a parameter: what they find over seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from report_inputs import TASKS, lines_of, small_suite, table, write_inputs

from tasks.graph import paths
from tasks.report.content import Content
from tasks.report.pages import adaptation, choice
from tasks.shared.tables import write_csv
from tasks.suite.schema import Suite

METHOD = "layer_wise_adamerging"

Ends = tuple[tuple[float, float], tuple[float, float]]
"""First and last entropy, first and last accuracy."""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    found = small_suite()
    write_inputs(found, tmp_path)
    return found


def adapt(suite: Suite, root: Path, seed: int, by_task: dict[str, Ends]) -> None:
    """A trajectory whose entropies stay at the first for one half of the steps, then at the last:
    pages average neighbouring steps.
    """
    rows: list[dict[str, float | None]] = []
    for step in range(41):
        half = int(step > 20)
        entropies = {task: ends[0][half] if step else None for task, ends in by_task.items()}
        accuracies = {
            task: ends[1][half] if step in (0, 40) else None for task, ends in by_task.items()
        }
        known = [value for value in accuracies.values() if value is not None]
        rows.append(
            {
                "step": step,
                **{f"entropy_{task}": value for task, value in entropies.items()},
                **{f"accuracy_{task}": value for task, value in accuracies.items()},
                "accuracy_average": fmean(known) if known else None,
            }
        )
    write_csv(root / paths.trajectory(suite.name, METHOD, seed, "transductive"), rows)


def finding(content: Content, words: str) -> str:
    (found,) = [
        f for f in content.findings if f.startswith("Layer-wise AdaMerging:") and words in f
    ]
    return found.partition(": ")[2]


RISING: Ends = ((0.9, 0.6), (60.0, 80.0))


def test_ends_are_means_over_the_seeds(suite: Suite, tmp_path: Path) -> None:
    adapt(suite, tmp_path, 0, dict.fromkeys(TASKS, RISING))
    adapt(suite, tmp_path, 1, dict.fromkeys(TASKS, ((1.1, 0.8), (62.0, 84.0))))
    content = adaptation.show(suite, tmp_path)
    assert finding(content, "entropy falls from") == (
        "entropy falls from 1.00 ± 0.14 to 0.70 ± 0.14 nats, accuracy rises from 61.0 ± 1.4 to "
        "82.0 ± 2.8 %."
    )
    (line,) = [
        each
        for each in table(content, "by_method").lines
        if each.names == ("Layer-wise AdaMerging",)
    ]
    assert [cell.text for cell in line.cells] == ["1.00", "0.70", "61.0", "82.0", "+21.0"]
    assert [cell.spread for cell in line.cells] == ["0.14", "0.14", "1.4", "2.8", "1.4"]
    assert "the seeds 0, 1" in table(content, "by_method").text
    assert finding(content, "on no task does accuracy fall")


def test_a_change_within_the_spread_is_not_shown(suite: Suite, tmp_path: Path) -> None:
    adapt(suite, tmp_path, 0, dict.fromkeys(TASKS, RISING))
    adapt(suite, tmp_path, 1, dict.fromkeys(TASKS, ((0.9, 0.9), (80.0, 62.0))))
    assert finding(adaptation.show(suite, tmp_path), "entropy falls from") == (
        "entropy falls from 0.90 ± 0.00 to 0.75 ± 0.21 nats (not shown: the spread over seeds is "
        "as large), accuracy rises from 70.0 ± 14.1 to 71.0 ± 12.7 % (not shown: the spread over "
        "seeds is as large)."
    )


def test_tasks_that_entropy_misleads_are_named(suite: Suite, tmp_path: Path) -> None:
    for seed in suite.seeds:
        misled = {TASKS[0]: ((0.9, 0.5), (70.0, 61.0 + seed))}
        adapt(suite, tmp_path, seed, dict.fromkeys(TASKS, RISING) | misled)
    assert finding(adaptation.show(suite, tmp_path), "accuracy falls").startswith(
        f"accuracy falls with entropy on {TASKS[0]} (entropy 0.90 ± 0.00 to 0.50 ± 0.00 nats, "
        "accuracy 70.0 ± 0.0 to 61.5 ± 0.7 %), measured on"
    )


def test_a_task_that_one_seed_alone_misleads_is_not_shown(suite: Suite, tmp_path: Path) -> None:
    for seed, last in enumerate((50.0, 69.0)):
        misled = {TASKS[0]: ((0.9, 0.5), (70.0, last))}
        adapt(suite, tmp_path, seed, dict.fromkeys(TASKS, RISING) | misled)
    assert (
        "accuracy 70.0 ± 0.0 to 59.5 ± 13.4 %, not shown: the spread over seeds is as large), "
        in finding(adaptation.show(suite, tmp_path), "accuracy falls")
    )


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    suite = small_suite(seeds=[0])
    write_inputs(suite, tmp_path)
    adapt(suite, tmp_path, 0, dict.fromkeys(TASKS, RISING))
    content = adaptation.show(suite, tmp_path)
    assert finding(content, "entropy falls from") == (
        "entropy falls from 0.90 to 0.60 nats, accuracy rises from 60.0 to 80.0 %."
    )


# --- the choice of a parameter --------------------------------------------------------------------


def chosen(suite: Suite, root: Path) -> str:
    found = choice.show(suite, root).findings
    (line,) = [each for each in found if each.startswith("Task arithmetic, best scaling:")]
    return line.partition(": ")[2]


def test_values_that_differ_over_seeds_are_all_named(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / paths.choice(suite.name, "task_arithmetic_best", 1)
    rows = lines_of(file)
    first, second, third, *_ = (row["scaling"] for row in rows)
    # the best of the tasks are the first three values in turn, so of their average the second
    assert chosen(suite, tmp_path) == (
        f"scaling {second} is best on average; 2 of 3 tasks have their best elsewhere with every "
        f"seed: {TASKS[0]} ({first}), {TASKS[2]} ({third})."
    )
    rows[2] |= {"average": "99.0", TASKS[0]: "99.0"}
    write_csv(file, rows)
    assert chosen(suite, tmp_path) == (
        f"scaling {second} or {third} is best on average; 0 of 3 tasks have their best elsewhere "
        "with every seed."
    )
    best = table(choice.show(suite, tmp_path), "best_values")
    (line,) = [each for each in best.lines if each.names[0] == "Task arithmetic, best scaling"]
    assert [cell.text for cell in line.cells] == [
        f"{first} or {third}",
        second,
        third,
        f"{second} or {third}",
    ]
    assert "Seeds 0, 1;" in best.text
