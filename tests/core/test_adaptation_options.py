"""The options of adaptation, each against its formula; resuming; precision; reading ahead."""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    CLASSES,
    Problem,
    TinyEncoder,
    naive_adaptation,
    naive_entropies,
    naive_vectors,
    tiny_problem,
)
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging import PRESETS, AdaptationSettings, Engine, adapt
from adamerge_core.adamerging import merging_coefficients as coefficients
from adamerge_core.adamerging import run_state as state_file
from adamerge_core.adamerging.early_stopping import split
from adamerge_core.adamerging.precision import LoweredProducts, faster_precision
from adamerge_core.adamerging.settings import COUNTS
from adamerge_core.batches import on_device, one_ahead
from adamerge_core.errors import InputError
from adamerge_core.merging import trim_and_elect
from adamerge_core.task_vectors import TaskVectors

LAYERS = 5
OPTIONS = {
    "two_batches": {"batches_per_step": 2},
    "projected": {"clamp": "projected", "learning_rate": 0.15},
    "unclamped": {"clamp": "none", "learning_rate": 0.15},
    "cosine": {"schedule": "cosine"},
    "a_share": {"unlabeled_share": 0.5},
    "held_out": {"held_out_share": 0.4, "patience": 100},
}


def make_engine(problem: Problem, **options: str | int) -> Engine:
    return Engine(TinyEncoder(), problem.task_vectors, problem.heads, **options)


def chosen_with(options: dict[str, object], steps: int = 50) -> AdaptationSettings:
    plain = {"learning_rate": 0.03, "batches_per_step": 1}
    return AdaptationSettings("layer_wise", steps, 3, **{**plain, **options})


def entropies_of(
    problem: Problem, coefficients: Tensor, rows: dict[str, np.ndarray]
) -> dict[str, Tensor]:
    images = {name: pixels[rows[name]] for name, pixels in problem.images.items()}
    return naive_entropies(problem, naive_vectors(problem), coefficients, images)


@pytest.mark.parametrize("option", OPTIONS)
def test_fifty_steps_equal_adam_on_the_naive_formula(option: str) -> None:
    problem = tiny_problem(seed=2)
    chosen = chosen_with(OPTIONS[option])
    rows = {
        name: split(len(pixels), chosen, (3, k))[0]
        for k, (name, pixels) in enumerate(problem.images.items())
    }
    losses, expected = naive_adaptation(
        lambda leaf, drawn: entropies_of(problem, leaf, drawn),
        rows,
        torch.full((LAYERS, 3), 0.3, dtype=torch.float64),
        chosen,
        seed=3,
    )
    steps = list(adapt(make_engine(problem), problem.images, chosen, seed=3))
    assert len(steps) == 50
    for step, loss, parameters in zip(steps[:-1], losses, expected, strict=False):
        assert step.entropy == pytest.approx(loss, rel=1e-8)
        torch.testing.assert_close(step.coefficients, parameters, rtol=0, atol=1e-9)
    everything = torch.stack([step.coefficients for step in steps])
    assert (everything.min() < 0) == (option == "unclamped")
    if option == "projected":
        assert everything.min() == 0
        assert everything.max() == 1


def test_a_projected_coefficient_comes_back_where_a_published_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pushed over the edge for ten steps, then pulled back for thirty."""
    problem, ends = tiny_problem(), {}
    for clamp in ("published", "projected"):
        engine, calls = make_engine(problem), iter(range(100))
        real = engine.loss_and_gradient

        def pushed(*arguments, real=real, calls=calls, **options):  # type: ignore[no-untyped-def]
            sign = -1.0 if next(calls) < 10 else 1.0
            gradient = torch.full((3,), sign, dtype=torch.float64)
            return real(*arguments, **options)._replace(gradient=gradient)

        monkeypatch.setattr(engine, "loss_and_gradient", pushed)
        chosen = AdaptationSettings("task_wise", 40, 3, 0.2, clamp=clamp, batches_per_step=1)
        ends[clamp] = list(adapt(engine, problem.images, chosen, 0))[-1].coefficients
    assert (ends["published"] == 1).all()
    assert (ends["projected"] < 0.5).all()


@given(
    count=st.integers(1, 60),
    share=st.floats(0.01, 1),
    held_out=st.floats(0, 0.9),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=100)
def test_the_split_is_disjoint_of_the_sizes_asked_for(
    count: int, share: float, held_out: float, seed: int
) -> None:
    chosen = AdaptationSettings(unlabeled_share=share, held_out_share=held_out)
    drawn, kept_out = split(count, chosen, (seed, 0))
    used = max(1, round(share * count))
    assert len(drawn) + len(kept_out) == used
    assert len(kept_out) == (max(1, round(held_out * used)) if held_out else 0)
    together = np.concatenate([drawn, kept_out])
    assert len(set(together)) == used
    assert set(together) <= set(range(count))
    if share == 1 and not held_out:
        np.testing.assert_array_equal(drawn, np.arange(count))


def test_seeds_and_tasks_use_different_images() -> None:
    chosen = AdaptationSettings(unlabeled_share=0.1)
    picks = [tuple(split(500, chosen, seed)[0]) for seed in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert picks[0] == picks[3]
    assert len(set(picks)) == 3


def test_early_stopping_ends_after_its_patience_at_the_lowest_held_out_entropy() -> None:
    problem = tiny_problem(seed=1)
    chosen = AdaptationSettings(
        "layer_wise", 400, 3, 0.05, held_out_share=0.5, measure_every=3, patience=4
    )
    engine = make_engine(problem, micro_batch=4)
    steps = list(adapt(engine, problem.images, chosen, seed=7))
    held_out = {
        name: split(len(pixels), chosen, (7, k))[1]
        for k, (name, pixels) in enumerate(problem.images.items())
    }
    measured: dict[int, float] = {}
    start = torch.full((LAYERS, 3), 0.3, dtype=torch.float64)
    measured[0] = sum(v.item() for v in entropies_of(problem, start, held_out).values())
    for step in steps:
        assert (step.held_out_entropy is not None) == (step.step % 3 == 0)
        if step.held_out_entropy is not None:
            measured[step.step] = sum(step.held_out_entropy.values())
    for step in steps[2:-1:3]:
        expected = entropies_of(problem, step.coefficients, held_out)
        assert step.held_out_entropy == pytest.approx(
            {name: value.item() for name, value in expected.items()}, rel=1e-10
        )
    best = min(measured, key=lambda number: measured[number])
    assert steps[-1].step == best + 4 * 3 < 400
    assert torch.equal(steps[-1].coefficients, steps[best - 1].coefficients if best else start)


def test_a_run_without_measurements_to_spare_gives_the_best_at_its_end() -> None:
    problem = tiny_problem(seed=1)
    chosen = chosen_with({"held_out_share": 0.3, "measure_every": 4, "patience": 99}, steps=10)
    steps = list(adapt(make_engine(problem), problem.images, chosen, seed=0))
    assert [s.step for s in steps if s.held_out_entropy is not None] == [4, 8, 10]
    assert all(set(s.held_out_entropy) == set(CLASSES) for s in steps if s.held_out_entropy)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("stop", [4, 11])
def test_interrupted_and_resumed_is_bit_equal_under_every_option(
    tmp_path: Path, option: str, stop: int
) -> None:
    problem = tiny_problem()
    chosen = chosen_with(OPTIONS[option], steps=14)
    whole = {s.step: s for s in adapt(make_engine(problem), problem.images, chosen, 2)}
    state = tmp_path / "state.safetensors"
    for step in adapt(make_engine(problem), problem.images, chosen, 2, state, save_every=3):
        if step.step == stop:
            break
    rest = list(adapt(make_engine(problem), problem.images, chosen, 2, state, save_every=3))
    assert [step.step for step in rest] == list(range((stop - 1) // 3 * 3 + 1, 15))
    for step in rest:
        assert torch.equal(step.coefficients, whole[step.step].coefficients)
        assert (step.entropy, step.loss) == (whole[step.step].entropy, whole[step.step].loss)
        assert step.held_out_entropy == whole[step.step].held_out_entropy


@pytest.mark.parametrize("stop", range(4, 30, 5))
def test_an_early_stopped_run_resumes_to_the_same_end(tmp_path: Path, stop: int) -> None:
    problem = tiny_problem(seed=1)
    chosen = AdaptationSettings(
        "layer_wise", 400, 3, 0.05, held_out_share=0.5, measure_every=3, patience=4
    )
    whole = list(adapt(make_engine(problem), problem.images, chosen, 7))
    state = tmp_path / "state.safetensors"
    for step in adapt(make_engine(problem), problem.images, chosen, 7, state, save_every=3):
        if step.step == stop:
            break
    for _ in range(2):  # the second time the run is finished
        rest = list(adapt(make_engine(problem), problem.images, chosen, 7, state, save_every=3))
        assert rest[-1].step == whole[-1].step
        assert torch.equal(rest[-1].coefficients, whole[-1].coefficients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"granularity": "task_wise"}, "granularity is layer_wise in the file, task_wise here"),
        ({"granularity": "task_wise"}, "shape is [5, 3] in the file, [3] here"),
        ({"learning_rate": 0.1}, "learning_rate is 0.03 in the file, 0.1 here"),
        ({"objective": "cross_entropy"}, "objective is entropy in the file, cross_entropy here"),
        ({"clamp": "projected"}, "clamp is published in the file, projected here"),
        ({"seed": 1}, "seed is 0 in the file, 1 here"),
        ({"images": 12}, "images is {'digits': 11, 'letters': 12, 'signs': 13} in the file"),
    ],
)
def test_another_run_s_state_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    problem, state = tiny_problem(), tmp_path / "state.safetensors"
    for _ in adapt(make_engine(problem), problem.images, chosen_with({}, 3), 0, state, 1):
        pass
    other = tiny_problem(images=int(str(change.pop("images", 11))))
    seed = int(str(change.pop("seed", 0)))
    settings_of = {"granularity": "layer_wise", "learning_rate": 0.03, **change}
    chosen = AdaptationSettings(steps=3, images_per_task=3, batches_per_step=1, **settings_of)
    labels = {name: torch.zeros(len(p), dtype=torch.int64) for name, p in other.images.items()}
    targets = labels if chosen.objective == "cross_entropy" else None
    with pytest.raises(InputError) as caught:
        next(adapt(make_engine(other), other.images, chosen, seed, state, targets=targets))
    assert message in str(caught.value)
    assert "delete the file" in str(caught.value)


def test_a_state_of_other_task_vectors_is_refused(tmp_path: Path) -> None:
    problem, state = tiny_problem(), tmp_path / "state.safetensors"
    for _ in adapt(make_engine(problem), problem.images, chosen_with({}, 3), 0, state, 1):
        pass
    trimmed = trim_and_elect(problem.task_vectors)
    engine = Engine(TinyEncoder(), trimmed, problem.heads)
    with pytest.raises(InputError, match=r"hash of the task vectors is \w+ in the file, \w+ here"):
        next(adapt(engine, problem.images, chosen_with({}, 3), 0, state))
    paths = {name: tmp_path / name for name in CLASSES}
    problem.task_vectors.save(paths)  # the same ones
    in_files = Engine(TinyEncoder(), TaskVectors.open(problem.pretrained, paths), problem.heads)
    (last,) = adapt(in_files, problem.images, chosen_with({}, 3), 0, state)
    assert last.step == 3


def test_a_state_of_other_targets_is_refused(tmp_path: Path) -> None:
    problem, state = tiny_problem(), tmp_path / "state.safetensors"
    chosen = chosen_with({"objective": "cross_entropy"}, 3)
    targets = {
        name: torch.eye(classes, dtype=torch.float64)[torch.arange(len(problem.images[name])) % 2]
        for name, classes in CLASSES.items()
    }

    def resumed(targets: dict[str, Tensor]) -> int:
        engine = make_engine(problem)
        return next(adapt(engine, problem.images, chosen, 0, state, 1, targets)).step

    for _ in adapt(make_engine(problem), problem.images, chosen, 0, state, 1, targets):
        pass
    rounded = {name: (each + 1e-9) / (each + 1e-9).sum(1, True) for name, each in targets.items()}
    assert resumed(targets) == resumed(rounded) == 3
    for swapped in (targets["letters"].flip(0), targets["letters"].argmax(dim=1) + 1):
        with pytest.raises(InputError, match=r"hash of the targets is \w+ in the file, \w+ here"):
            resumed({**targets, "letters": swapped})


@pytest.mark.parametrize(
    ("sample", "seen"), [(1, 1), (3, 1), (4, 2), (9, 2), (10, 3), (51, 3), (52, 4), (10**6, 5)]
)
def test_the_smallest_layers_tell_task_vectors_apart(
    monkeypatch: pytest.MonkeyPatch, sample: int, seen: int
) -> None:
    """Of layers of 3, 6, 42, 54 and 189 entries, in files perhaps, those that are needed."""
    monkeypatch.setattr(state_file, "_SAMPLE", sample)
    problem, read = tiny_problem(), []
    vectors = problem.task_vectors
    names = sorted(vectors.layer_names, key=lambda name: vectors.pretrained[name].numel())

    class Spy(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            read.append(name)
            return super().__getitem__(name)

    def described(layers: Mapping[str, Tensor]) -> object:
        spied = replace(vectors, layers=Spy(layers))
        engine = Engine(TinyEncoder(), spied, problem.heads)
        read.clear()
        return state_file.described(engine, torch.zeros(3), {}, None)

    plain = described(vectors.layers)
    assert read == names[:seen]
    layers = {name: stack.clone() for name, stack in vectors.layers.items()}
    layers[names[seen - 1]][2].view(-1)[0] += 1
    assert described(layers) != plain
    renamed = {**vectors.layers}
    renamed["hidden.bias"] = renamed.pop("projection.bias")[:, [0, 1, 2, 3, 4, 5, 5]]
    assert described(renamed) != plain


def test_a_state_file_may_have_any_suffix(tmp_path: Path) -> None:
    problem, state = tiny_problem(), tmp_path / "adapt.pt"
    whole = list(adapt(make_engine(problem), problem.images, chosen_with({}, 3), 0, state, 1))
    rest = list(adapt(make_engine(problem), problem.images, chosen_with({}, 3), 0, state, 1))
    assert [step.step for step in rest] == [3]
    assert torch.equal(rest[0].coefficients, whole[-1].coefficients)


def test_a_file_that_holds_no_state_is_refused(tmp_path: Path) -> None:
    problem, state = tiny_problem(), tmp_path / "state.safetensors"
    checkpoints.save(state, {"coefficients": torch.zeros(3)}, {"step": "3"})
    with pytest.raises(InputError, match="has no checksum of its content"):
        next(adapt(make_engine(problem), problem.images, chosen_with({}), 0, state))


def test_every_fault_of_the_options_is_listed() -> None:
    nan = float("nan")
    chosen = AdaptationSettings(
        "layer_wise", 5, 3, nan, nan, "accuracy", 0, "soft", "linear", nan, 1.0, 0, -1
    )
    faults = "\n".join(chosen.faults())
    assert len(chosen.faults()) == 10
    for part in (
        "learning_rate = nan: must be above 0 and finite",
        "start = nan: must be in [0, 1], or clamp must be 'none'",
        "objective = 'accuracy': must be one of entropy, cross_entropy, self_labelling",
        "batches_per_step = 0: must be at least 1",
        "clamp = 'soft': must be one of published, projected, none",
        "schedule = 'linear': must be one of constant, cosine",
        "unlabeled_share = nan: must be in (0, 1]",
        "held_out_share = 1.0: must be in [0, 1)",
        "measure_every = 0: must be at least 1",
        "patience = -1: must be at least 1",
    ):
        assert part in faults
    problem = tiny_problem(images=1)
    chosen = AdaptationSettings(held_out_share=0.5)
    with pytest.raises(InputError, match="leave none of its 1 images"):
        next(adapt(make_engine(problem), problem.images, chosen, 0))


@pytest.mark.parametrize(
    "value", ["1e-3", "5", None, True, [1], np.float32(1), torch.tensor(1)], ids=repr
)
def test_numbers_of_other_types_are_refused(value: object) -> None:
    """YAML reads 1e-3 as text."""
    numbers = ("learning_rate", "start", "unlabeled_share", "held_out_share")
    for clamp in ("published", "none"):
        chosen = replace(
            AdaptationSettings(clamp=clamp), **dict.fromkeys((*numbers, *COUNTS), value)
        )
        faults = chosen.faults()
        assert len(faults) == 9
        for name in numbers:
            assert any(
                f"{name} = {value!r}: must be a number (int or float), " in f for f in faults
            )
        for name in COUNTS:
            assert f"{name} = {value!r}: must be a whole number (int), at least 1" in faults


@pytest.mark.parametrize("value", [1e3, 16.0, float("nan"), float("inf"), np.int64(3)])
def test_counts_are_whole_numbers(value: object) -> None:
    faults = AdaptationSettings(**dict.fromkeys(COUNTS, value)).faults()
    assert faults == [f"{n} = {value!r}: must be a whole number (int), at least 1" for n in COUNTS]


def test_whole_numbers_are_numbers() -> None:
    chosen = AdaptationSettings(learning_rate=1, start=0, unlabeled_share=1, held_out_share=0)
    assert chosen.faults() == []


def test_a_seed_and_a_rhythm_that_are_none_are_refused() -> None:
    problem = tiny_problem()
    for seed, save_every, faults in (
        (-1, 0, ("seed = -1: must be at least 0", "save_every = 0: must be at least 1")),
        (0.0, 2.5, ("seed = 0.0: must be a whole number", "save_every = 2.5: must be a whole")),
    ):
        with pytest.raises(InputError, match="2 faults") as caught:
            next(
                adapt(make_engine(problem), problem.images, chosen_with({}), seed, None, save_every)
            )
        assert all(fault in str(caught.value) for fault in faults)


def test_the_defaults_are_the_paper_s() -> None:
    paper = PRESETS["paper"]
    assert paper == AdaptationSettings()
    assert (paper.steps, paper.images_per_task, paper.batches_per_step) == (500, 16, 2)
    assert (paper.learning_rate, paper.start, paper.clamp) == (1e-3, 0.3, "published")
    assert all(preset.faults() == [] for preset in PRESETS.values())


@pytest.mark.parametrize("small", [0, 20, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merging_into_channels_last_and_batches_of_small_layers_is_exact(
    monkeypatch: pytest.MonkeyPatch, small: int, dtype: torch.dtype
) -> None:
    """Whatever counts as small, and however the encoder's kernels lie in memory."""
    monkeypatch.setattr(coefficients, "_SMALL", small)
    problem = tiny_problem().to(dtype)
    vectors, heads, images = problem.task_vectors, problem.heads, problem.images
    values = torch.rand(LAYERS, 3, dtype=torch.float64)
    plain = Engine(TinyEncoder().to(dtype), vectors, heads)
    encoder = TinyEncoder().to(dtype).to(memory_format=torch.channels_last)
    assert not encoder.convolution.weight.is_contiguous()
    engine = Engine(encoder, vectors, heads)
    expected = plain.loss_and_gradient(values, images)
    result = engine.loss_and_gradient(values, images)
    merged = vectors.merge(values)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-12}
    for name, tensor in engine.encoder.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], **close)
    torch.testing.assert_close(result.gradient, expected.gradient, **close)
    assert not encoder.convolution.weight.is_contiguous()


def test_bfloat16_runs_the_encoder_under_autocast_and_keeps_the_rest() -> None:
    problem, seen = tiny_problem().to(torch.float32), set()

    class Watching(TinyEncoder):
        def forward(self, images: Tensor) -> Tensor:
            features = super().forward(images)
            seen.add(features.dtype)
            return features

    vectors, images = problem.task_vectors, problem.images
    results = {}
    for precision in ("float32", "bfloat16"):
        seen.clear()
        engine = Engine(Watching().float(), vectors, problem.heads, precision=precision)
        results[precision] = engine.loss_and_gradient(torch.full((LAYERS, 3), 0.3), images)
        assert seen == {getattr(torch, precision)}
        assert engine.logits("digits", images["digits"]).dtype == torch.float32
    exact, rounded = results["float32"], results["bfloat16"]
    assert rounded.entropy == pytest.approx(exact.entropy, abs=0.05)
    difference = (rounded.gradient - exact.gradient).norm() / exact.gradient.norm()
    assert 0 < difference < 0.1
    double = make_engine(tiny_problem(), precision="bfloat16")
    assert double.precision == "float32"


def test_bfloat16_backward_lowers_the_products_of_the_backward_pass_alone() -> None:
    problem = tiny_problem().to(torch.float32)
    vectors, images, values = problem.task_vectors, problem.images, torch.full((LAYERS, 3), 0.3)
    exact, lowered = (
        Engine(TinyEncoder().float(), vectors, problem.heads, 5, precision).loss_and_gradient(
            values, images
        )
        for precision in ("float32", "bfloat16_backward")
    )
    assert lowered.loss == exact.loss
    difference = (lowered.gradient - exact.gradient).norm() / exact.gradient.norm()
    assert 0 < difference < 0.01


def test_the_first_step_under_bfloat16_backward_is_that_of_float32() -> None:
    problem = tiny_problem().to(torch.float32)
    chosen = AdaptationSettings("layer_wise", 2, 4, learning_rate=0.01)
    exact, lowered = (
        list(adapt(engine, problem.images, chosen, seed=0))
        for precision in ("float32", "bfloat16_backward")
        for engine in [Engine(TinyEncoder().float(), *parts_of(problem), precision=precision)]
    )
    assert torch.equal(lowered[0].coefficients, exact[0].coefficients)
    assert lowered[1].loss == exact[1].loss
    assert not torch.equal(lowered[1].coefficients, exact[1].coefficients)
    values, images = torch.full((LAYERS, 3), 0.3), problem.images
    engine = Engine(TinyEncoder().float(), *parts_of(problem), precision="bfloat16_backward")
    gradients = [
        engine.loss_and_gradient(values, images, exact_backward=exact_backward).gradient
        for exact_backward in (True, False, True)
    ]
    assert torch.equal(gradients[0], gradients[2])
    assert not torch.equal(gradients[0], gradients[1])


def parts_of(problem: Problem) -> tuple[TaskVectors, Mapping[str, torch.nn.Module]]:
    return problem.task_vectors, problem.heads


@pytest.mark.gpu
def test_bfloat16_backward_reaches_the_threads_of_a_gpus_backward_pass() -> None:
    problem = tiny_problem().to(torch.float32)
    vectors = problem.task_vectors.to("cuda")
    heads = {name: copy.deepcopy(head).cuda() for name, head in problem.heads.items()}
    exact, lowered = (
        Engine(TinyEncoder().float().cuda(), vectors, heads, precision=precision).loss_and_gradient(
            torch.full((LAYERS, 3), 0.3), problem.images
        )
        for precision in ("float32", "bfloat16_backward")
    )
    difference = (lowered.gradient - exact.gradient).norm() / exact.gradient.norm()
    assert 1e-5 < difference < 0.01


def test_lowered_products_are_those_of_rounded_factors() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(shape, generator=generator) for shape in ((5, 7), (7, 3), (2, 4, 6, 6)))
    kernel = torch.randn(4, 1, 3, 3, generator=generator, requires_grad=True)
    torch.conv2d(c, kernel, groups=4).square().sum().backward()
    grouped, kernel.grad = kernel.grad, None
    with LoweredProducts():
        product, sum_of_both = a @ b, torch.addmm(torch.ones(3), a, b)
        torch.conv2d(c, kernel, groups=4).square().sum().backward()
    rounded = (a.bfloat16().double() @ b.bfloat16().double()).float()
    assert product.dtype == sum_of_both.dtype == torch.float32
    torch.testing.assert_close(product, rounded, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(sum_of_both, rounded + 1, rtol=2**-7, atol=2**-7)
    assert not torch.equal(product, a @ b)
    with LoweredProducts():
        halves, doubles = a.bfloat16() @ b.bfloat16(), a.double() @ b.double()
    assert (halves.dtype, doubles.dtype) == (torch.bfloat16, torch.float64)
    assert torch.equal(doubles, a.double() @ b.double())
    assert torch.equal(kernel.grad, grouped)


_EXACT = torch.tensor([3.0, 4.0])
"""A gradient, of norm 5."""


@pytest.mark.parametrize(
    ("gains", "deviations", "chosen"),
    [
        ((1.1, 1.1), (0, 0), "float32"),
        ((1.8, 1.4), (0.001, 0.001), "bfloat16"),
        ((1.8, 1.4), (0.17, 0.003), "bfloat16_backward"),
        ((1.8, 1.4), (0.17, 0.02), "float32"),
        ((1.2, 1.4), (0.01, 0.003), "bfloat16_backward"),
        ((0.5, 1.3), (0.001, 0.009), "bfloat16_backward"),
        ((1.8, 1.4), (float("nan"), float("nan")), "float32"),
    ],
)
def test_auto_takes_the_fastest_precision_that_hardly_changes_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gains: tuple[float, float],
    deviations: tuple[float, float],
    chosen: str,
) -> None:
    lowered = ("bfloat16", "bfloat16_backward")
    seconds = {"float32": 1.0, **{p: 1 / g for p, g in zip(lowered, gains, strict=True)}}
    off = {"float32": 0.0, **dict(zip(lowered, deviations, strict=True))}
    now, runs = [0.0], []

    def run(precision: str) -> None:
        runs.append(precision)
        now[0] += seconds[precision]

    def gradient() -> Tensor:
        return _EXACT + off[runs[-1]] * torch.tensor([-4.0, 3.0])

    monkeypatch.setattr("adamerge_core.adamerging.precision.time.perf_counter", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="adamerge_core"):
        assert faster_precision(run, gradient, torch.device("cpu")) == chosen
    assert set(runs) == {"float32", *lowered}
    assert f"precision {chosen}: a micro-batch takes 1.0000 s in float32" in caplog.text
    for precision, gain, deviation in zip(lowered, gains, deviations, strict=True):
        text = f"{precision} is {gain:.2f} times as fast, its gradient {deviation:.2%} off"
        assert text in caplog.text


def test_a_gradient_of_zero_is_kept_by_what_keeps_it_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now, runs = [0.0], []

    def run(precision: str) -> None:
        runs.append(precision)
        now[0] += 1.0 if precision == "float32" else 0.5

    def gradient() -> Tensor:
        return torch.full((2,), 1e-9 if runs[-1] == "bfloat16" else 0.0)

    monkeypatch.setattr("adamerge_core.adamerging.precision.time.perf_counter", lambda: now[0])
    assert faster_precision(run, gradient, torch.device("cpu")) == "bfloat16_backward"


def test_auto_leaves_quick_passes_in_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of passes of 4 ms it is chance which is faster: the choice would differ from run to run."""
    now, runs = [0.0], []

    def run(precision: str) -> None:
        runs.append(precision)
        now[0] += 0.004

    def gradient() -> Tensor:
        raise AssertionError("nothing to compare")

    monkeypatch.setattr("adamerge_core.adamerging.precision.time.perf_counter", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="adamerge_core"):
        assert faster_precision(run, gradient, torch.device("cpu")) == "float32"
    assert set(runs) == {"float32"}
    assert "precision float32: a micro-batch takes 0.0040 s" in caplog.text


def test_an_engine_measures_unless_it_is_told() -> None:
    problem = tiny_problem().to(torch.float32)
    engine = Engine(problem.encoder, problem.task_vectors, problem.heads)
    assert engine.precision == "auto"
    engine.loss_and_gradient(torch.full((LAYERS, 3), 0.3), problem.images)
    assert engine.precision == "float32"


def test_auto_settles_once_and_a_resumed_run_keeps_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny_problem().to(torch.float32)
    vectors, images = problem.task_vectors, problem.images
    state, choices = tmp_path / "state.safetensors", iter(["bfloat16", "float32"])

    def fake(run, gradient, device):  # type: ignore[no-untyped-def]
        gradients = []
        for precision in ("float32", "bfloat16_backward", "bfloat16", "float32"):
            run(precision)
            gradients.append(gradient())
        assert torch.equal(gradients[0], gradients[-1])
        assert not torch.equal(gradients[0], gradients[1])
        return next(choices)

    monkeypatch.setattr("adamerge_core.adamerging.engine.faster_precision", fake)

    def engine(precision: str = "auto") -> Engine:
        return Engine(TinyEncoder().float(), vectors, problem.heads, 4, precision)

    first = engine()
    for step in adapt(first, images, chosen_with({}, 6), 0, state, 2):
        if step.step == 3:
            break
    assert first.precision == "bfloat16"
    resumed = engine()
    list(adapt(resumed, images, chosen_with({}, 6), 0, state, 2))
    assert resumed.precision == "bfloat16"
    whole = list(adapt(engine("bfloat16"), images, chosen_with({}, 6), 0))
    rest = list(adapt(engine(), images, chosen_with({}, 6), 0, state, 2))
    assert torch.equal(rest[-1].coefficients, whole[-1].coefficients)
    with pytest.raises(InputError, match="precision is bfloat16 in the file, float32 here"):
        next(adapt(engine("float32"), images, chosen_with({}, 6), 0, state))


def test_an_engine_s_bad_arguments_are_listed() -> None:
    problem = tiny_problem()
    encoder = TinyEncoder()
    own = TaskVectors(encoder.state_dict(), tuple(CLASSES), problem.task_vectors.layers)
    with pytest.raises(InputError) as caught:
        Engine(encoder, own, problem.heads, 0, "float16")
    message = str(caught.value)
    assert "micro_batch = 0: must be at least 1, or None" in message
    known = "float32, bfloat16, bfloat16_backward, auto"
    assert f"precision = 'float16': must be one of {known}" in message
    assert "hidden.weight of the pretrained model is the encoder's own" in message
    compiled = copy.deepcopy(encoder)
    compiled.compile(backend="eager")
    with pytest.raises(InputError, match="'bfloat16_backward': does not reach into a compiled"):
        Engine(compiled, problem.task_vectors, problem.heads, precision="bfloat16_backward")
    with pytest.raises(InputError, match=r"hidden.weight is torch.float32 in the encoder"):
        Engine(TinyEncoder().float(), problem.task_vectors, problem.heads)


def test_on_a_cpu_batches_stay_what_they_are() -> None:
    batches = [{"digits": torch.full((2,), k, dtype=torch.uint8)} for k in range(3)]
    passed = list(on_device(iter(batches), torch.device("cpu")))
    assert all(a is b for a, b in zip(passed, batches, strict=True))


def test_one_ahead_keeps_the_order_and_is_one_ahead() -> None:
    made: list[int] = []
    ready = threading.Event()

    def change(item: int) -> int:
        made.append(item)
        if item == 1:
            ready.set()
        return item * 10

    stream = one_ahead(iter(range(5)), change)
    assert next(stream) == 0
    assert ready.wait(5)  # the second is made while the caller has the first
    assert made == [0, 1]
    assert list(stream) == [10, 20, 30, 40]
    assert list(one_ahead(iter([]), change)) == []


def test_one_ahead_passes_errors_on_and_can_be_left() -> None:
    stream = one_ahead(iter([1.0, 0.0]), lambda item: 1 / item)
    assert next(stream) == 1
    with pytest.raises(ZeroDivisionError):
        next(stream)
    before = threading.active_count()
    left = one_ahead(iter(range(9)), float)
    assert next(left) == 0
    left.close()
    assert threading.active_count() == before


def test_the_cosine_starts_at_the_rate_and_falls_to_nearly_none() -> None:
    """The first update of Adam is the rate itself, whatever the gradient."""
    problem = tiny_problem()
    for schedule, last in (("constant", 1.0), ("cosine", (1 - math.cos(math.pi / 8)) / 2)):
        chosen = chosen_with({"schedule": schedule, "clamp": "none"}, steps=8)
        steps = [s.coefficients for s in adapt(make_engine(problem), problem.images, chosen, 0)]
        assert (steps[0] - 0.3).abs().max() == pytest.approx(0.03, rel=1e-4)
        assert (steps[-1] - steps[-2]).abs().max() <= 0.03 * last * 1.5


def test_task_vectors_may_stay_in_files(tmp_path: Path) -> None:
    problem = tiny_problem()
    paths = {name: tmp_path / f"{name}.safetensors" for name in CLASSES}
    problem.task_vectors.save(paths)
    opened = TaskVectors.open(problem.pretrained, paths)
    results = [
        list(
            adapt(Engine(TinyEncoder(), vectors, problem.heads), problem.images, chosen_with({}), 0)
        )
        for vectors in (problem.task_vectors, opened)
    ]
    assert torch.equal(results[0][-1].coefficients, results[1][-1].coefficients)


@pytest.mark.gpu
@pytest.mark.parametrize("option", OPTIONS)
def test_a_gpu_learns_what_the_cpu_does(option: str) -> None:
    problem, chosen = tiny_problem(), chosen_with(OPTIONS[option], steps=20)
    heads = {name: head.to("cuda") for name, head in tiny_problem().heads.items()}
    engine = Engine(TinyEncoder().to("cuda"), problem.task_vectors.to("cuda"), heads, 5)
    on_gpu = list(adapt(engine, problem.images, chosen, 0))
    on_cpu = list(adapt(make_engine(problem), problem.images, chosen, 0))
    for first, second in zip(on_gpu, on_cpu, strict=True):
        assert first.entropy == pytest.approx(second.entropy, rel=1e-6)
        torch.testing.assert_close(first.coefficients, second.coefficients, rtol=0, atol=1e-6)
