"""Paired differences between methods: their intervals, and what the page of results claims."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_inputs import SEEDS, TASKS, lines_of, small_suite, write_inputs

from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import differences
from tasks.report.content import Content
from tasks.report.pages import results
from tasks.report.paired import Difference, paired_difference
from tasks.report.rows import AVERAGE, Row
from tasks.report.summaries import Summary, normalised
from tasks.shared.hits import read_hits, write_hits
from tasks.suite.schema import Suite

# --- the interval ---------------------------------------------------------------------------------


def naive(
    first: list[np.ndarray], second: list[np.ndarray], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The same bootstrap, image by image and seed by seed, in plain loops."""
    random = np.random.default_rng(seed)
    seeds = len(first[0])

    def mean(chosen: list[int], images: list[list[int]]) -> float:
        total = 0.0
        for s in chosen:
            for one, other, rows in zip(first, second, images, strict=True):
                gained = one[s, rows].astype(float) - other[s, rows]
                total += float(gained.mean()) / len(first) / seeds
        return 100 * total

    counts = [each.shape[1] for each in first]
    plain = mean(list(range(seeds)), [list(range(count)) for count in counts])
    drawn = [
        mean(
            random.integers(0, seeds, seeds).tolist(),
            [random.integers(0, count, count).tolist() for count in counts],
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return plain, float(low), float(high)


def measured(rates: list[float], counts: list[int], seeds: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    hard = [random.uniform(size=count) for count in counts]  # an image is hard for all seeds
    return [
        (0.7 * each + 0.3 * random.uniform(size=(seeds, len(each)))) < rate
        for rate, each in zip(rates, hard, strict=True)
    ]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_is_that_of_a_naive_bootstrap(seeds: int) -> None:
    counts = [40, 25, 60]
    first = measured([0.7, 0.5, 0.8], counts, seeds, 1)
    second = measured([0.6, 0.5, 0.7], counts, seeds, 2)
    found = paired_difference(first, second, resamples=20_000)
    plain, low, high = naive(first, second, 3000, seed=5)
    assert found.points == pytest.approx(plain, abs=1e-9)
    # a quantile of 3000 resamples is off by a few percent of the interval's length
    assert abs(found.low - low) < 0.06 * (high - low)
    assert abs(found.high - high) < 0.06 * (high - low)


def test_images_are_drawn_for_all_seeds_at_once() -> None:
    """Ten equal seeds say no more than one: their images are the same."""
    one = measured([0.6, 0.4], [50, 80], 1, 1), measured([0.5, 0.5], [50, 80], 1, 2)
    ten = [[np.repeat(each, 10, axis=0) for each in method] for method in one]
    alone, together = paired_difference(*one, 8000), paired_difference(ten[0], ten[1], 8000)
    assert together.points == pytest.approx(alone.points)
    width = alone.high - alone.low
    assert together.high - together.low == pytest.approx(width, rel=0.06)


def test_a_difference_on_every_image_is_certain_and_none_is_not_shown() -> None:
    right, wrong = [np.ones((2, 30), bool)], [np.zeros((2, 30), bool)]
    assert paired_difference(right, wrong) == Difference(100.0, 100.0, 100.0)
    assert paired_difference(wrong, right).shown
    assert paired_difference(right, right) == Difference(0.0, 0.0, 0.0)
    assert not paired_difference(right, right).shown


def test_tasks_that_cancel_out_are_no_difference() -> None:
    """A tenth added and taken away three times is not 0 in floats."""
    right, wrong = np.ones((1, 30), bool), np.zeros((1, 30), bool)
    first = [right] * 3 + [wrong] * 7
    second = [wrong] * 3 + [right] * 3 + [wrong] * 4
    assert paired_difference(first, second) == Difference(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.021, 1.23, "shown (95 % interval of the difference 0.02 to 1.2)"),
        (-0.96, -0.0004, "shown (95 % interval of the difference -1.0 to -0.0004)"),
        (0.0, 0.05, "not shown (95 % interval of the difference 0.0 to 0.1)"),
    ],
)
def test_a_bound_beside_zero_does_not_read_as_zero(low: float, high: float, text: str) -> None:
    first, second = (Summary({AVERAGE: value}, {}) for value in (70.0, 69.5))
    said = differences.tested_lead(first, second, "another", Difference(0.5, low, high))
    assert said == f"0.5 points above another (69.5 %), {text}"


def test_seeds_that_disagree_leave_a_difference_not_shown() -> None:
    """Many images: what one seed gains another loses."""
    first = [np.tile([[True], [True], [False]], (1, 5000))]
    second = [np.tile([[False], [False], [True]], (1, 5000))]
    found = paired_difference(first, second)
    assert found.points == pytest.approx(100 / 3)
    assert (found.low, found.high, found.shown) == (-100.0, 100.0, False)


def test_tasks_weigh_the_same_whatever_their_number_of_images() -> None:
    first = [np.ones((1, 10), bool), np.zeros((1, 990), bool)]
    second = [np.zeros((1, 10), bool), np.zeros((1, 990), bool)]
    assert paired_difference(first, second).points == pytest.approx(50)


# --- hits in files --------------------------------------------------------------------------------


def test_hits_are_read_back_and_equal_ones_are_equal_bytes(tmp_path: Path) -> None:
    hits = {("held_out", "mnist"): np.array([True, False]), ("x", "a_b"): np.zeros(3, bool)}
    for name in ("one.npz", "other.npz"):
        write_hits(tmp_path / name, hits)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    found = read_hits(tmp_path / "one.npz")
    assert found.keys() == hits.keys()
    assert all(np.array_equal(found[key], hits[key]) for key in hits)


def test_a_damaged_file_of_hits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hits.npz"
    write_hits(path, {("held_out", "mnist"): np.ones(500, bool)})
    whole = path.read_bytes()
    for damaged in (b"", b"nothing", whole[:200], whole[:60] + b"\0" * 20 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"hits.npz.*dvc repro"):
            read_hits(path)
    np.savez(path, **{"held_out/mnist": np.ones(3)})
    with pytest.raises(InputError, match=r"held_out/mnist: must be \[N\] of bool"):
        read_hits(path)


# --- the page -------------------------------------------------------------------------------------

BASE = {"pretrained": 50.0, "individual": 95.0, "weight_averaging": 55.0, "task_arithmetic": 60.0}


def page(suite: Suite, root: Path, **levels: float) -> Content:
    everything = dict.fromkeys([*suite.references, *suite.merging], 60.0)
    write_inputs(suite, root, everything | BASE | levels)
    return results.show(suite, root)


def test_every_adaptation_is_held_against_the_baselines_of_the_paper(tmp_path: Path) -> None:
    suite = small_suite()
    shown = page(suite, tmp_path, layer_wise_adamerging=80.0, layer_wise_adamerging_pp=84.0)
    (table,) = [each for each in shown.tables if each.name == "differences"]
    pairs = [line.names for line in table.lines]
    kinds = ("Task-wise AdaMerging", "Layer-wise AdaMerging")
    for kind in kinds:
        for label in (kind, f"{kind}++"):
            for other in ("Weight averaging", "Task arithmetic", "Ties-Merging"):
                assert (label, other) in pairs
        assert (f"{kind}++", kind) in pairs
    assert len(set(pairs)) == len(pairs) == 15  # 12, 2 of ++, and the individual models
    assert f"seeds of fine-tuning ({', '.join(map(str, SEEDS))})" in table.text
    one_seed = page(small_suite(seeds=[3]), tmp_path)
    (table,) = [each for each in one_seed.tables if each.name == "differences"]
    assert "There is one seed of fine-tuning, 3" in table.text


def test_sentences_follow_the_hits(tmp_path: Path) -> None:
    """The same accuracies: what is shown hangs on the images that were right."""
    suite = small_suite()
    levels = {"layer_wise_adamerging": 80.0, "layer_wise_adamerging_pp": 84.0}
    said = page(suite, tmp_path, **levels).findings
    plain = "Layer-wise AdaMerging++ is the best merged model: 84."
    assert any(line.startswith(plain) and "shown (95 % interval" in line for line in said)
    (counted,) = [line for line in said if line.startswith("Of 12 differences")]
    assert "Weight averaging, Task arithmetic, Ties-Merging, " in counted
    assert "are shown to be above 0" in counted
    (found,) = [line for line in said if "the next" in line]
    assert re.match(r"It is \d\.\d points above Layer-wise AdaMerging \(80\.", found)
    assert ", shown (95 % interval of the difference " in found
    assert sum("above Layer-wise AdaMerging (" in line for line in said) == 1
    assert any(line.startswith("Task-wise AdaMerging++ is ") for line in said)
    shuffle_hits(suite, tmp_path, [*suite.references, *suite.merging], keep=12)
    said = results.show(suite, tmp_path).findings
    (found,) = [line for line in said if "the next" in line]
    assert re.match(r"It is \d\.\d points above Layer-wise AdaMerging \(80\.", found)
    assert ", not shown (95 % interval of the difference " in found


def test_hits_of_other_images_are_listed(tmp_path: Path) -> None:
    suite = small_suite()
    page(suite, tmp_path)
    shuffle_hits(suite, tmp_path, ["ties_merging"], keep=12)
    write_hits(tmp_path / paths.hits(suite.name, "weight_averaging", 0), {})
    with pytest.raises(InputError, match=r"(?s)12 images of signs.*dvc repro") as caught:
        results.show(suite, tmp_path)
    count = len(PROTOCOLS) * len(TASKS)
    assert str(caught.value).count("ties_merging.npz: 12 images") == count * len(SEEDS)
    assert str(caught.value).count("weight_averaging.npz: no hits of") == count


def shuffle_hits(suite: Suite, root: Path, methods: list[str], keep: int) -> None:
    """Leave few images, and each method right on others."""
    random = np.random.default_rng(0)
    for method in methods:
        for seed in SEEDS:
            path = root / paths.hits(suite.name, method, seed)
            few = {key: random.permutation(each)[:keep] for key, each in read_hits(path).items()}
            write_hits(path, few)


def test_the_data_of_the_differences(tmp_path: Path) -> None:
    suite = small_suite()
    text = page(suite, tmp_path, layer_wise_adamerging=80.0).files["differences.csv"]
    (tmp_path / "differences.csv").write_text(text)
    lines = lines_of(tmp_path / "differences.csv")
    assert {line["protocol"] for line in lines} == set(PROTOCOLS)
    for line in lines:
        low, high = float(line["low"]), float(line["high"])
        assert low <= float(line["difference"]) <= high
        assert line["shown"] == ("yes" if low > 0 or high < 0 else "no")


def test_normalised_is_the_share_of_the_individual_models() -> None:
    def row(method: str, seed: int, **accuracies: float) -> Row:
        return Row(method, "held_out", seed, {**accuracies, "average": 1.0})

    rows = [
        row("individual", 0, a=80.0, b=50.0),
        row("individual", 1, a=100.0, b=40.0),
        row("merged", 0, a=40.0, b=50.0),
        row("merged", 1, a=100.0, b=10.0),
    ]
    found = normalised(rows, "held_out")
    assert found["individual"].mean["average"] == 100
    assert found["merged"].mean["average"] == pytest.approx((75 + 62.5) / 2)
    nothing: Any = normalised([row("individual", 0, a=0.0)], "held_out")
    assert np.isnan(nothing["individual"].mean["average"])
