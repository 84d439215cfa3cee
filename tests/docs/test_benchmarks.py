"""Benchmarks: their arrangements compute the same, and their commands print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adamerge_core.adamerging import PRESETS, AdaptationStep
from adamerge_core.errors import InputError
from benchmarks import choose, finite_checks, linear_heads, memory, presets, suite_problem
from benchmarks.adapt_step import comparisons, operations, task_vectors
from benchmarks.arrangements import ARRANGEMENTS, engine
from benchmarks.processes import WorkFailed
from benchmarks.random_models import Problem, random_problem
from tasks.shared.tables import write_csv

ROOT = Path(__file__).parents[2]
NUMBER = r"[\d.e+-]+"
SPREAD = rf"{NUMBER}.* \({NUMBER} to {NUMBER}\)"
TASKS, IMAGES = 3, 5


@pytest.fixture
def problem() -> Problem:
    return random_problem("tiny", TASKS, IMAGES, dtype=torch.float64)


def coefficients(problem: Problem) -> Tensor:
    layers = len(list(problem.encoder.parameters()))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(layers, TASKS, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("micro_batch", [1, 4, 7, TASKS * IMAGES])
def test_all_arrangements_give_the_same_gradient(
    problem: Problem, micro_batch: int, tmp_path: Path
) -> None:
    names = ("ours", "ours_in_files", "published", "merge_once")
    vectors, where = task_vectors(problem, {*names}, tmp_path), coefficients(problem)
    ours, *others = (
        ARRANGEMENTS[name](problem, vectors[name], micro_batch, "float32")(where) for name in names
    )
    assert ours is not None
    assert ours.abs().min() > 0
    for other in others:
        torch.testing.assert_close(other, ours, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("micro_batch", [1, 4, 7, TASKS * IMAGES])
def test_the_floor_does_the_passes_of_ours(problem: Problem, micro_batch: int) -> None:
    """With coefficients of zero the merged model is the floor's: the encoder as it is."""
    vectors, zeros = problem.task_vectors(clone=True), torch.zeros_like(coefficients(problem))
    found = {}
    for name in ("ours", "floor"):
        ARRANGEMENTS[name](problem, vectors, micro_batch, "float32")(zeros)
        found[name] = {n: p.grad.clone() for n, p in problem.encoder.named_parameters()}
    torch.testing.assert_close(found["floor"], found["ours"], rtol=1e-9, atol=1e-15)


def test_merging_is_ours_without_the_passes(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vectors, where = task_vectors(problem, {"merging"}, tmp_path)["merging"], coefficients(problem)
    monkeypatch.setattr(problem.encoder, "forward", None)
    gradient = ARRANGEMENTS["merging"](problem, vectors, 1, "float32")(where)
    assert gradient is not None
    assert gradient.shape == where.shape
    assert gradient.abs().min() > 0
    merged = vectors.merge(where)
    torch.testing.assert_close(dict(problem.encoder.state_dict()), merged, rtol=1e-9, atol=0)


def test_problems_are_the_same_in_every_process() -> None:
    first, second = (random_problem("tiny", TASKS, IMAGES) for _ in range(2))
    torch.testing.assert_close(first.images, second.images, rtol=0, atol=0)
    layers = [dict(each.task_vectors(clone=True).layers) for each in (first, second)]
    torch.testing.assert_close(*layers, rtol=0, atol=0)


def test_operations_are_those_of_the_products() -> None:
    """Linear layers 192 -> 32 -> 16 and a head of 397 classes that gets no gradient."""
    first, second, head = 192 * 32, 32 * 16, 16 * 397
    forward = first + second + head
    backward = first + 2 * second + head  # the images get no gradient
    found = operations(random_problem("tiny", 1, 1), "cpu")
    assert found == 2 * (forward + backward)


def test_ratios_are_costs_over_what_they_are_measured_against() -> None:
    assert comparisons([("published", "float32"), ("floor", "float32")]) == []
    variants = [(name, "float32") for name in ("merge_once", "ours", "floor")]
    merging = ("merging", "float32")
    assert comparisons([merging, ("floor", "float32")]) == [(merging, ("floor", "float32"))]
    assert comparisons([merging, ("ours", "float32")]) == []
    in_files = ("ours_in_files", "float32")
    compiled = ("ours_compiled", "float32")
    assert comparisons([("ours", "float32"), compiled]) == [(("ours", "float32"), compiled)]
    lowered = [("ours", "bfloat16"), ("ours", "bfloat16_backward")]
    assert comparisons([*variants, *lowered, in_files]) == [
        (("merge_once", "float32"), ("ours", "float32")),
        (("ours", "float32"), ("floor", "float32")),
        (("merge_once", "float32"), in_files),
        (in_files, ("floor", "float32")),
        (("ours", "float32"), ("ours", "bfloat16")),
        (("ours", "float32"), ("ours", "bfloat16_backward")),
    ]


def run(*arguments: str) -> str:
    line = [sys.executable, "-m", "benchmarks.adapt_step", "--model", "tiny", "--tasks", "2"]
    done = subprocess.run(
        [*line, "--threads", "1", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_checks_of_a_step_cost_a_small_part_of_it() -> None:
    problem = random_problem("tiny", 2, 4, "cpu")
    chosen = engine(problem, problem.task_vectors(clone=True), 4, "float32")
    costs = finite_checks.measure(problem, chosen, 3)
    assert len(costs) == 3
    assert all(0 < each.checks < each.step for each in costs)


@pytest.mark.slow
def test_a_step_prints_every_arrangement_and_its_ratios() -> None:
    printed = run("--steps", "2", "--arrangements", "ours", "floor")
    for name in ("ours", "floor"):
        line = rf"^{name} float32 +{SPREAD}  {NUMBER} images/s  {NUMBER} GiB$"
        assert re.search(line, printed, re.MULTILINE), printed
    ratio = rf"^ours float32 / floor float32 +time {SPREAD}  memory {NUMBER}$"
    assert re.search(ratio, printed, re.MULTILINE), printed


@pytest.mark.slow
def test_a_compiled_encoder_is_compared_with_the_plain_one() -> None:
    printed = run("--steps", "2", "--arrangements", "ours", "ours_compiled")
    ratio = rf"^ours float32 / ours_compiled float32 +time {SPREAD}  memory {NUMBER}$"
    assert re.search(ratio, printed, re.MULTILINE), printed


@pytest.mark.slow
def test_what_is_killed_for_memory_is_said_and_measured_with_fewer_tasks() -> None:
    printed = run("--arrangements", "published", "--leave-free", "1e6")
    deaths = re.findall(r"^published float32 +killed for memory: SIGKILL at .*", printed, re.M)
    assert len(deaths) == 2, printed
    assert "less than 1e+06 GiB was left" in deaths[0]
    assert re.findall(r"^tiny, (\d) tasks", printed, re.M) == ["2", "1"]


@pytest.mark.slow
def test_a_whole_run_prints_operations_bytes_and_shares() -> None:
    printed = run("--whole-run", "2", "--peak-tflops", "1e-6", "--peak-bandwidth", "1e-6")
    for line in (
        rf"2 steps of 32 images per task: {NUMBER} s, {NUMBER} s/step, {NUMBER} images/s, .* GiB",
        rf"operations: {NUMBER} M per image, .*, {NUMBER}% of the peak",
        rf"merge and inner products: {NUMBER} MB per step, .*, {NUMBER}% of the peak",
        rf"at both peaks it would take {NUMBER} s, {NUMBER}% of what it took",
    ):
        assert re.search(rf"^{line}$", printed, re.MULTILINE), printed


def test_a_measurement_of_memory_that_fails_is_a_line_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_: object, case: memory.Case, what: str, __: float) -> tuple[float, float]:
        if case.what == "ties_merging":
            raise WorkFailed(f"{what}: failed with exit code 1; see its traceback")
        return 1.25, 3.0

    def written(_: str, __: int, folder: Path) -> None:
        (folder / "pretrained.safetensors").touch()

    monkeypatch.setattr(memory, "in_fresh_process", measured)
    monkeypatch.setattr(memory, "write_files", written)
    what = ["ties_merging", "task_arithmetic"]
    monkeypatch.setattr(sys, "argv", ["memory", "--tasks", "2", "--what", *what])
    with pytest.raises(SystemExit, match="1 of the measurements failed"):
        memory.main()
    failed, *others, most = capsys.readouterr().out.splitlines()
    assert failed.endswith(
        "ties_merging, 2 tasks, in files: failed with exit code 1; see its traceback"
    )
    assert [line.split()[:5] for line in others] == [
        ["task_arithmetic", "2", "tasks", "in", where] for where in ("files", "memory")
    ]
    assert most == "most with the task vectors in files: 1.25 GiB"


def test_changed_settings_are_checked_all_at_once() -> None:
    chosen = presets.changed("fast", ["steps=7", "learning_rate=0.5"], None)
    settings = chosen.method.settings
    assert (settings.steps, settings.learning_rate) == (7, 0.5)
    assert settings.objective == PRESETS["fast"].objective
    plain = presets.changed("fast", [], None)
    over_ties = presets.changed("fast", [], "trim_and_elect")
    assert len({trial.key for trial in (chosen, plain, over_ties)}) == 3
    with pytest.raises(InputError) as caught:
        presets.changed("fast", ["stepz=3", "steps=many"], None)
    assert "stepz: is no parameter" in str(caught.value)
    assert "steps = 'many': must be a whole number" in str(caught.value)
    with pytest.raises(InputError, match="steps = 0: must be at least 1"):
        presets.changed("paper", ["steps=0"], None)


def test_passes_count_the_experts_forwards() -> None:
    images = {"a": np.zeros((30, 2)), "b": np.zeros((60, 2))}
    assert presets.passes(PRESETS["paper"], images) == 500 * 32 * 2
    assert presets.passes(PRESETS["fast"], images) == 360 * 8 * 2 + 30
    supervised = presets.changed("fast", ["objective=cross_entropy"], None).method.settings
    assert presets.passes(supervised, images) == 360 * 8 * 2


def test_progress_of_a_resumed_adaptation_counts_its_own_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0, 4.0, 6.0])
    monkeypatch.setattr(suite_problem.time, "monotonic", lambda: next(clock))
    steps = [AdaptationStep(number, {}, torch.zeros(0), {}, None) for number in (8, 9, 10)]
    assert list(suite_problem.with_progress(iter(steps), "fast", 10)) == steps
    shown = capsys.readouterr().err.split("\r")[1:]
    assert shown == ["fast: 8/10, 4 s left ", "fast: 9/10, 2 s left ", "fast: 10/10, 0 s left \n"]


def test_results_of_before_rows_had_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "presets.csv"
    old = {"suite": "mini", "preset": "fast", "protocol": "held_out", "seed": "0"}
    new = {"suite": "mini", "preset": "fast", "key": "0a", "protocol": "held_out", "seed": "0"}
    write_csv(path, [old])
    write_csv(path, [*presets._read(path), new])
    assert presets._read(path) == [{**old, "key": ""}, new]


def test_criteria_choose_the_first_of_their_best_and_regret_what_the_test_images_say() -> None:
    def measured(scaling: float, accuracy: float, entropy: float, test: float) -> choose.Measured:
        criteria = {"accuracy": accuracy, "entropy": entropy, "agreement": 50.0}
        return choose.Measured(scaling, criteria, test)

    by_scaling = [
        measured(0.1, 70, 0.9, 71),
        measured(0.2, 72, 0.7, 70),
        measured(0.3, 60, 0.5, 61),
    ]
    found = {name: choose.chosen(name, by_scaling) for name in ("accuracy", "entropy", "agreement")}
    assert {name: each.scaling for name, each in found.items()} == {
        "accuracy": 0.2,
        "entropy": 0.3,
        "agreement": 0.1,
    }
    assert [each.regret for each in found.values()] == [1, 10, 0]
    lines = choose.table({"iso_c": [by_scaling, by_scaling[:2]]}, [0, 1]).splitlines()
    assert lines[2] == "| `iso_c` | accuracy | 0.2, 0.2 | 70.0 | 71.0 | 1.0 | 1.0 |"


def test_linear_heads_prints_a_row_a_penalty(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_heads, "COUNTS", {"train": 44, "test": 22})
    linear_heads.main(["--penalties", "0.3", "--steps", "1"])
    _, line = capsys.readouterr().out.splitlines()
    pair = rf" +{NUMBER} / +{NUMBER}"
    assert re.fullmatch(rf" +0\.3{pair}{pair}{pair}{pair}", line)
