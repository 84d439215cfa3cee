"""Task vectors: what they hold, merging by coefficients, files, and how they lie to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CLASSES, UNCHANGED, naive_merge, naive_vectors, stacked, tiny_problem
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.adamerging import Engine
from adamerge_core.analysis import (
    block_norms,
    cosine_matrix,
    distance_matrix,
    entry_counts,
    inner_products,
    l2_norms,
    sign_conflicts,
)
from adamerge_core.errors import InputError
from adamerge_core.layers import network_order
from adamerge_core.merging import weight_averaging
from adamerge_core.merging.ties import trim, trim_and_elect
from adamerge_core.task_vectors import TaskVectors


@pytest.fixture
def problem():
    return tiny_problem()


def assert_close(state: dict, expected: dict) -> None:
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-12, atol=1e-12)


def test_layers_are_the_differences_of_the_changed_tensors(problem) -> None:
    vectors = problem.task_vectors
    expected = stacked(naive_vectors(problem))
    assert vectors.task_names == tuple(CLASSES)
    assert vectors.layer_names == tuple(expected)
    assert set(problem.pretrained) - set(vectors.layer_names) == {UNCHANGED, "batches_seen"}
    for name, stack in expected.items():
        np.testing.assert_array_equal(vectors.layers[name].numpy(), stack)


def test_a_tensor_that_one_task_changed_is_a_layer_of_all(problem) -> None:
    problem.finetuned["letters"][UNCHANGED] += 1
    stack = problem.task_vectors.layers[UNCHANGED]
    assert (stack[1] == 1).all()
    assert (stack[[0, 2]] == 0).all()


@pytest.mark.parametrize("index", range(3))
def test_coefficient_one_for_one_task_gives_its_model(problem, index: int) -> None:
    coefficients = torch.eye(3)[index]
    expected = list(problem.finetuned.values())[index]
    assert_close(problem.task_vectors.merge(coefficients), expected)


def test_zero_coefficients_or_zero_vectors_give_the_pretrained_model(problem) -> None:
    merged = problem.task_vectors.merge(torch.zeros(3))
    assert all(torch.equal(merged[n], t) for n, t in problem.pretrained.items())
    copies = {name: dict(problem.pretrained) for name in CLASSES}
    unchanged = TaskVectors.from_checkpoints(problem.pretrained, copies)
    assert unchanged.layer_names == ()
    merged = unchanged.merge(torch.ones(3))
    assert all(torch.equal(merged[n], t) for n, t in problem.pretrained.items())


@given(seed=st.integers(0, 1000), layer_wise=st.booleans())
@settings(deadline=None, max_examples=25)
def test_merge_is_the_formula(seed: int, layer_wise: bool) -> None:
    problem = tiny_problem(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 3) if layer_wise else (3,)
    coefficients = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = naive_merge(problem.pretrained, naive_vectors(problem), coefficients)
    assert_close(problem.task_vectors.merge(coefficients), expected)


@given(order=st.permutations(list(CLASSES)), layer_wise=st.booleans())
@settings(deadline=None, max_examples=12)
def test_permuting_the_tasks_permutes_the_coefficients(order: list[str], layer_wise: bool) -> None:
    problem = tiny_problem()
    vectors = problem.task_vectors
    coefficients = torch.rand((5, 3) if layer_wise else (3,), dtype=torch.float64)
    columns = [vectors.task_names.index(name) for name in order]
    finetuned = {name: problem.finetuned[name] for name in order}
    permuted = TaskVectors.from_checkpoints(problem.pretrained, finetuned)
    assert_close(permuted.merge(coefficients[..., columns]), vectors.merge(coefficients))
    selected = vectors.select(tuple(order))
    assert selected.task_names == tuple(order)
    assert_close(selected.merge(coefficients[..., columns]), vectors.merge(coefficients))


def normalised_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 6)
    ).double()


def tuned_in_training_mode(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The network's state dict after some steps on `images`, which move its running statistics."""
    network = normalised_network().train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):
        adam.zero_grad()
        network(images).square().mean().backward()
        adam.step()
    return network.state_dict()


@pytest.mark.parametrize("in_files", [False, True])
def test_batch_norms_fine_tuned_in_training_mode_are_merged(
    problem, tmp_path: Path, in_files: bool
) -> None:
    pretrained = normalised_network().state_dict()
    finetuned = {n: tuned_in_training_mode(2 + pixels) for n, pixels in problem.images.items()}
    if in_files:
        models = {name: tmp_path / f"{name}.model" for name in CLASSES}
        for name, path in models.items():
            checkpoints.save(path, finetuned[name])
        into = {name: tmp_path / name for name in CLASSES}
        vectors = TaskVectors.from_checkpoint_files(pretrained, models, into)
    else:
        vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    statistics = {"1.running_mean", "1.running_var"}
    assert set(pretrained) - set(vectors.layer_names) == {"1.num_batches_tracked"}
    merged = weight_averaging(vectors)
    for name in vectors.layer_names:
        mean = torch.stack([state[name] for state in finetuned.values()]).mean(dim=0)
        torch.testing.assert_close(merged[name], mean, rtol=1e-12, atol=1e-12)
    assert merged["1.num_batches_tracked"] == 0  # 3 in the fine-tuned ones

    encoder = normalised_network()
    coefficients = torch.full((len(vectors.layers), 3), 1 / 3, dtype=torch.float64)
    result = Engine(encoder, vectors, problem.heads).loss_and_gradient(coefficients, problem.images)
    assert_close(encoder.state_dict(), merged)
    for name, row in zip(vectors.layer_names, result.gradient, strict=True):
        assert torch.isfinite(row).all()
        assert bool((row == 0).all()) == (name in statistics)


def test_select_takes_a_subset_with_all_layers(problem) -> None:
    vectors = problem.task_vectors
    chosen = vectors.select(("signs",))
    assert chosen.layer_names == vectors.layer_names
    assert_close(chosen.merge(torch.ones(1)), problem.finetuned["signs"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_are_kept_and_integer_buffers_carried(problem, dtype: torch.dtype) -> None:
    def cast(state: dict) -> dict:
        return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}

    finetuned = {name: cast(state) for name, state in problem.finetuned.items()}
    vectors = TaskVectors.from_checkpoints(cast(problem.pretrained), finetuned)
    merged = vectors.merge(torch.full((3,), 0.3, dtype=torch.float64))
    for name, tensor in merged.items():
        assert tensor.dtype == (torch.int64 if name == "batches_seen" else dtype)
    assert merged["batches_seen"] == 7


def test_merging_leaves_the_callers_tensors_as_they_were(problem) -> None:
    before = {name: tensor.clone() for name, tensor in problem.pretrained.items()}
    tuned = {name: tensor.clone() for name, tensor in problem.finetuned["digits"].items()}
    problem.task_vectors.merge(torch.ones(3))
    assert all(torch.equal(before[name], t) for name, t in problem.pretrained.items())
    assert all(torch.equal(tuned[name], t) for name, t in problem.finetuned["digits"].items())


def test_save_and_load_round_trip(problem, tmp_path: Path) -> None:
    vectors = problem.task_vectors
    paths = {name: tmp_path / f"{name}.safetensors" for name in CLASSES}
    vectors.save(paths)
    loaded = TaskVectors.load(problem.pretrained, paths)
    assert (loaded.task_names, loaded.layer_names) == (vectors.task_names, vectors.layer_names)
    assert all(torch.equal(loaded.layers[n], stack) for n, stack in vectors.layers.items())
    some = ("signs", "digits")
    part = TaskVectors.load(problem.pretrained, {name: paths[name] for name in some})
    expected = vectors.select(some)
    assert part.task_names == some
    assert all(torch.equal(part.layers[n], stack) for n, stack in expected.layers.items())


def test_files_that_lack_a_layer_without_saying_so_are_refused(problem, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in CLASSES}
    problem.task_vectors.save(paths)
    lacking = "projection.weight"
    for name in ("digits", "signs"):
        kept = {key: t for key, t in checkpoints.load(paths[name]).items() if key != lacking}
        checkpoints.save(paths[name], kept)
    with pytest.raises(InputError) as caught:
        TaskVectors.load(problem.pretrained, paths)
    for name in ("digits", "signs"):
        assert f"{name}: tensor {lacking} is missing" in str(caught.value)
    without = {n: t for n, t in problem.pretrained.items() if n != lacking}
    with pytest.raises(InputError, match=r"letters: tensor projection.weight is extra"):
        TaskVectors.load(without, {"letters": paths["letters"]})


def test_no_checkpoint_at_all_is_refused(problem) -> None:
    with pytest.raises(InputError, match="at least one"):
        TaskVectors.from_checkpoints(problem.pretrained, {})


@pytest.mark.parametrize("shape", [(), (2,), (5,), (3, 5), (4, 3), (1, 3), (5, 3, 1)])
def test_coefficients_of_another_shape_are_refused(problem, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"need \[3\] or \[5, 3\]") as caught:
        problem.task_vectors.expand(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_coefficients_are_refused(problem, value: float) -> None:
    with pytest.raises(InputError, match="non-finite"):
        problem.task_vectors.merge(torch.tensor([0.3, value, 0.3]))


def test_expand_repeats_task_wise_rows(problem) -> None:
    row = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(problem.task_vectors.expand(row), row.repeat(5, 1))


def test_geometry_equals_numpy(problem) -> None:
    vectors = naive_vectors(problem)
    flat = np.stack([np.concatenate([v.ravel() for v in vs.values()]) for vs in vectors.values()])
    for k, row in enumerate(flat):
        np.testing.assert_array_equal(problem.task_vectors.flat(k).numpy(), row)
    gram = inner_products(problem.task_vectors)
    np.testing.assert_allclose(gram.numpy(), flat @ flat.T, rtol=1e-12)
    lengths = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(l2_norms(gram).numpy(), lengths, rtol=1e-12)
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in flat] for b in flat]
    np.testing.assert_allclose(cosine_matrix(gram).numpy(), cosines, rtol=1e-12)


def test_distances_norms_by_block_and_conflicts_equal_numpy(problem) -> None:
    vectors = naive_vectors(problem)
    flat = np.stack([np.concatenate([v.ravel() for v in vs.values()]) for vs in vectors.values()])
    distances = [[np.linalg.norm(a - b) for a in flat] for b in flat]
    found = distance_matrix(inner_products(problem.task_vectors)).numpy()
    np.testing.assert_allclose(found, distances, rtol=1e-9, atol=1e-6)

    names = problem.task_vectors.layer_names
    order, blocks = network_order(names)
    for block, norms in block_norms(problem.task_vectors).items():
        rows = [names[order[row]] for row in blocks[block]]
        for k, task in enumerate(problem.task_vectors.task_names):
            values = np.concatenate([vectors[task][name].ravel() for name in rows])
            assert norms[k].item() == pytest.approx(np.linalg.norm(values), rel=1e-12)

    pairs, share = sign_conflicts(problem.task_vectors)
    opposite = [[np.mean(a * b < 0) for a in flat] for b in flat]
    np.testing.assert_allclose(pairs.numpy(), opposite, rtol=1e-12)
    assert share == pytest.approx(np.mean((flat.max(axis=0) > 0) & (flat.min(axis=0) < 0)))
    np.testing.assert_array_equal(entry_counts(problem.task_vectors), (flat != 0).sum(axis=1))


def test_after_an_election_no_signs_conflict(problem) -> None:
    trimmed = trim(problem.task_vectors, 0.5)
    assert 0 < sign_conflicts(trimmed)[1] < 1
    elected = trim_and_elect(problem.task_vectors, 0.5)
    assert sign_conflicts(elected)[1] == 0
    kept, left = entry_counts(trimmed), entry_counts(elected)
    assert (left < kept).all()
    for name, stack in elected.layers.items():
        same = stack == trimmed.layers[name]
        assert bool((same | (stack == 0)).all())


def test_a_zero_task_vector_has_cosine_zero(problem) -> None:
    problem.finetuned["letters"] = dict(problem.pretrained)
    cosines = cosine_matrix(inner_products(problem.task_vectors))
    assert torch.isfinite(cosines).all()
    assert (cosines[1] == 0).all()
    assert (cosines[:, 1] == 0).all()


def test_files_written_apart_open_together(tmp_path: Path) -> None:
    pretrained = {"a": torch.ones(2, 3), "b": torch.ones(4), "c": torch.zeros(5)}
    finetuned = {
        "first": {**pretrained, "a": torch.full((2, 3), 3.0)},
        "second": {**pretrained, "b": torch.full((4,), 0.5), "a": torch.zeros(2, 3)},
    }
    files = {name: tmp_path / f"{name}.safetensors" for name in finetuned}
    for name, state in finetuned.items():
        TaskVectors.from_checkpoints(pretrained, {name: state}).save({name: files[name]})
    together = TaskVectors.from_checkpoints(pretrained, finetuned)
    for opened in (TaskVectors.open(pretrained, files), TaskVectors.load(pretrained, files)):
        assert opened.layer_names == together.layer_names == ("a", "b")
        for name, stack in together.layers.items():
            assert torch.equal(opened.layers[name], stack)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    merged = TaskVectors.open(pretrained, files).merge(weights)
    for name, tensor in together.merge(weights).items():
        assert torch.equal(merged[name], tensor)
