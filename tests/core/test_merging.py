"""The rules that need no data, against their formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from small_models import (
    CLASSES,
    naive_trim_and_elect,
    naive_trimmed_vectors,
    rule_for,
    stacked,
    tiny_problem,
)

from adamerge_core.errors import InputError
from adamerge_core.merging import (
    BEFORE,
    RULES,
    task_arithmetic,
    ties_merging,
    trim_and_elect,
    weight_averaging,
)
from adamerge_core.task_vectors import TaskVectors

KEEPS = [0.05, 0.2, 0.29, 0.5, 0.99, 1.0]

# multiples of 1/8, so that sums are exact in any order; many equal magnitudes, zeros, cancellations
EIGHTHS = npst.arrays(
    np.int64,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.integers(-4, 4),
).map(lambda values: values / 8)


def as_task_vectors(rows: np.ndarray, split: int) -> TaskVectors:
    """[K, n] as task vectors of two layers, of `split` and n - split entries, over zeros."""
    parts = {"first": rows[:, :split], "second": rows[:, split:]}
    layers = {name: torch.from_numpy(part.copy()) for name, part in parts.items() if part.size}
    pretrained = {name: torch.zeros_like(stack[0]) for name, stack in layers.items()}
    return TaskVectors(pretrained, tuple(f"task{k}" for k in range(len(rows))), layers)


@given(rows=EIGHTHS, keep=st.sampled_from(KEEPS), data=st.data())
@settings(deadline=None, max_examples=120)
def test_trim_and_elect_equals_numpy(rows: np.ndarray, keep: float, data: st.DataObject) -> None:
    vectors = as_task_vectors(rows, data.draw(st.integers(0, rows.shape[1])))
    naive = {
        task_name: {name: stack[k].numpy() for name, stack in vectors.layers.items()}
        for k, task_name in enumerate(vectors.task_names)
    }
    expected = stacked(naive_trim_and_elect(naive, keep))
    result = trim_and_elect(vectors, keep)
    assert result.layer_names == vectors.layer_names
    for name, stack in expected.items():
        np.testing.assert_array_equal(result.layers[name].numpy(), stack)


@pytest.mark.parametrize("keep", KEEPS)
def test_ties_merging_of_a_model_equals_numpy(keep: float) -> None:
    problem = tiny_problem()
    expected = stacked(naive_trimmed_vectors(problem, keep))
    merged = ties_merging(problem.task_vectors, scaling=0.4, keep=keep)
    for name, tensor in problem.pretrained.items():
        total = 0.4 * expected[name].sum(axis=0) if name in expected else 0
        np.testing.assert_allclose(merged[name].numpy(), tensor.numpy() + total, rtol=1e-12)


def test_trimming_keeps_the_largest_entries_over_all_layers() -> None:
    rows = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]])
    kept = trim_and_elect(as_task_vectors(rows, 3), keep=0.2)
    # the 8th smallest magnitude of ten is the threshold and stays
    assert kept.layers["first"].tolist() == [[0, 0, 0]]
    assert kept.layers["second"].tolist() == [[0, 0, 0, 0, 8, 9, 10]]


@pytest.mark.parametrize(
    ("keep", "stays"),
    [(0.1, [4, 5]), (0.2, [3, 4, 5]), (0.4, [1, 2, 3, 4, 5]), (0.5, [1, 2, 3, 4, 5])],
)
def test_tensors_that_no_task_changed_count_among_those_to_keep(
    keep: float, stays: list[int]
) -> None:
    pretrained = {
        "layer": torch.zeros(5, dtype=torch.float64),
        "unchanged": torch.ones(5),
        "steps": torch.tensor(5),
    }
    finetuned = {**pretrained, "layer": torch.arange(1.0, 6.0, dtype=torch.float64)}
    kept = trim_and_elect(TaskVectors.from_checkpoints(pretrained, {"task": finetuned}), keep)
    # of ten entries the 9th, 8th, 6th and 5th smallest magnitude, five of which are zero
    assert [value for value in kept.layers["layer"][0].tolist() if value] == stays


def test_where_the_sum_is_zero_the_majority_sign_is_elected() -> None:
    rows = np.array([[1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]])
    kept = trim_and_elect(as_task_vectors(rows, 1), keep=1.0)
    assert kept.layers["first"].tolist() == [[0], [-1]]


def test_ties_of_task_vectors_without_layers_is_the_pretrained_model() -> None:
    problem = tiny_problem()
    copies = {name: dict(problem.pretrained) for name in CLASSES}
    merged = ties_merging(TaskVectors.from_checkpoints(problem.pretrained, copies))
    assert all(torch.equal(merged[n], t) for n, t in problem.pretrained.items())


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, 20, float("nan")])
def test_keep_outside_its_range_is_refused(keep: float) -> None:
    with pytest.raises(InputError, match=rule_for(keep, r"\(0, 1\]")) as caught:
        ties_merging(tiny_problem().task_vectors, keep=keep)
    assert f"keep = {keep}" in str(caught.value)


def test_weight_averaging_is_the_plain_mean() -> None:
    problem = tiny_problem()
    merged = weight_averaging(problem.task_vectors)
    for name, tensor in problem.pretrained.items():
        states = [state[name].numpy() for state in problem.finetuned.values()]
        expected = np.mean(states, axis=0) if tensor.is_floating_point() else tensor.numpy()
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("scaling", [0.0, 0.3, 1.0, 2.5])
def test_task_arithmetic_is_its_formula(scaling: float) -> None:
    problem = tiny_problem()
    merged = task_arithmetic(problem.task_vectors, scaling=scaling)
    for name, tensor in problem.pretrained.items():
        total = sum((state[name] - tensor).numpy() for state in problem.finetuned.values())
        expected = tensor.numpy() + scaling * total
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-12, atol=1e-14)


# --- every rule of the registry -----------------------------------------------------------------

OF_GIVEN_MODELS = "published_coefficients"
"""Merges the paper's models alone: tests/core/test_published.py."""

DATA_FREE = [n for n, rule in RULES.items() if rule.needs is None and n != OF_GIVEN_MODELS]
"""Those with `needs` are tested with their statistics."""

SCALED = {"scaling": 1.0}
GIVES_A_SINGLE_TASK: dict[str, dict[str, float]] = {
    "weight_averaging": {},
    "task_arithmetic": SCALED,
    "ties_merging": {**SCALED, "keep": 1.0},
    "dare": {**SCALED, "drop": 0.0},
    "breadcrumbs": {**SCALED, "beta": 0.0, "gamma": 1.0},
    "consensus": {**SCALED, "min_tasks": 1},
    "lines": {"alpha": 1.0, "beta": 0.0},
    "tsv_m": SCALED,
    "wudi": {},
}
"""With these, one task alone gives its fine-tuned model; the isotropic rules never do."""

BLOCKS = {
    "convolution.weight": "blocks.0.convolution.weight",
    "convolution.bias": "blocks.0.convolution.bias",
    "hidden.weight": "blocks.1.weight",
}
"""New names for some layers: LiNeS scales by the blocks' numbers."""


def in_blocks(vectors: TaskVectors) -> TaskVectors:
    pretrained = {BLOCKS.get(name, name): tensor for name, tensor in vectors.pretrained.items()}
    layers = {BLOCKS.get(name, name): stack for name, stack in vectors.layers.items()}
    return TaskVectors(pretrained, vectors.task_names, layers)


@pytest.fixture
def vectors() -> TaskVectors:
    return in_blocks(tiny_problem().task_vectors)


def test_the_registry_knows_what_a_rule_needs() -> None:
    assert set(GIVES_A_SINGLE_TASK) | {"iso_c", "iso_cts"} == set(DATA_FREE)
    needs = {name: rule.needs for name, rule in RULES.items() if rule.needs}
    assert needs == {"fisher_merging": "fisher_diagonal", "regmean": "gram_matrices"}
    for name, entry in {**RULES, **BEFORE}.items():
        assert entry.name == name
        assert entry.summary.endswith((".", ":"))
        assert entry.source


@pytest.mark.parametrize("name", DATA_FREE)
def test_a_rule_found_by_name_gives_a_whole_model(name: str, vectors: TaskVectors) -> None:
    merged = RULES[name](vectors)
    assert merged.keys() == vectors.pretrained.keys()
    for tensor_name, tensor in vectors.pretrained.items():
        assert merged[tensor_name].dtype == tensor.dtype
        assert merged[tensor_name].device == tensor.device
        assert merged[tensor_name].shape == tensor.shape
        if tensor_name not in vectors.layers:
            assert torch.equal(merged[tensor_name], tensor)


@pytest.mark.parametrize("name", GIVES_A_SINGLE_TASK)
def test_one_task_alone_gives_its_model(name: str, vectors: TaskVectors) -> None:
    alone = vectors.select(("letters",))
    merged = RULES[name](alone, **GIVES_A_SINGLE_TASK[name])
    for layer, stack in alone.layers.items():
        expected = vectors.pretrained[layer] + stack[0]
        torch.testing.assert_close(merged[layer], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", DATA_FREE)
def test_zero_task_vectors_give_the_pretrained_model(name: str, vectors: TaskVectors) -> None:
    merged = RULES[name](vectors.map_layers(lambda _, stack: torch.zeros_like(stack)))
    for tensor_name, tensor in vectors.pretrained.items():
        torch.testing.assert_close(merged[tensor_name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("order", [("signs", "digits", "letters"), ("letters", "signs", "digits")])
@pytest.mark.parametrize("name", DATA_FREE)
def test_the_order_of_the_tasks_changes_nothing(
    name: str, order: tuple[str, ...], vectors: TaskVectors
) -> None:
    merged, permuted = RULES[name](vectors), RULES[name](vectors.select(order))
    for tensor_name, tensor in merged.items():
        torch.testing.assert_close(permuted[tensor_name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", DATA_FREE)
def test_the_dtype_is_kept(name: str, dtype: torch.dtype, vectors: TaskVectors) -> None:
    pretrained = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in vectors.pretrained.items()
    }
    narrow = TaskVectors(
        pretrained, vectors.task_names, {k: s.to(dtype) for k, s in vectors.layers.items()}
    )
    merged = RULES[name](narrow)
    assert {k: t.dtype for k, t in merged.items()} == {k: t.dtype for k, t in pretrained.items()}
