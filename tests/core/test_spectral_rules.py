"""TSV-M, Iso-C, Iso-CTS and WUDI against their formulas in numpy, and where these degenerate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_models import rule_for, tiny_problem
from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.merging.isotropic import iso_c, iso_cts
from adamerge_core.merging.spectral import polar_factor, thin_svd
from adamerge_core.merging.tsv import tsv_decorrelate, tsv_m
from adamerge_core.merging.wudi import quadratic_terms, wudi
from adamerge_core.task_vectors import TaskVectors

SHAPES = {
    "linear": (12, 9),
    "wide": (7, 20),
    "pointwise": (8, 10, 1, 1),
    "kernel": (8, 3, 3, 3),
    "depthwise": (6, 1, 3, 3),
    "bias": (11,),
    "temperature": (),
}
MATRICES = ("linear", "wide", "pointwise", "kernel")

RULES: dict[str, Callable[..., dict[str, Tensor]]] = {
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
    "wudi": wudi,
}


def random_vectors(tasks: int = 3, seed: int = 0, rank: int | None = None) -> TaskVectors:
    """Task vectors of all SHAPES in float64; `rank` limits that of the matrices."""
    generator = np.random.default_rng(seed)
    layers = {}
    for name, shape in SHAPES.items():
        stack = generator.normal(size=(tasks, *shape))
        if rank is not None and name in MATRICES:
            left = generator.normal(size=(tasks, shape[0], rank))
            right = generator.normal(size=(tasks, rank, int(np.prod(shape[1:]))))
            stack = (left @ right).reshape(stack.shape)
        layers[name] = torch.from_numpy(np.asarray(stack))
    pretrained = {
        name: torch.from_numpy(np.asarray(generator.normal(size=shape)))
        for name, shape in SHAPES.items()
    }
    pretrained["steps"] = torch.tensor(7)
    return TaskVectors(pretrained, tuple(f"task{k}" for k in range(tasks)), layers)


def with_layers(vectors: TaskVectors, change: Callable[[Tensor], Tensor]) -> TaskVectors:
    return vectors.map_layers(lambda _, stack: change(stack))


def single(vectors: TaskVectors) -> TaskVectors:
    return vectors.select(vectors.task_names[:1])


def matrices_of(stack: Tensor) -> list[np.ndarray]:
    return [each.numpy().reshape(len(each), -1) for each in stack]


def check(
    merged: dict[str, Tensor],
    vectors: TaskVectors,
    naive: Callable[[list[np.ndarray]], np.ndarray],
    scaling: float,
) -> None:
    """merged = pretrained + scaling * (naive update of a matrix, mean of another layer)."""
    assert merged.keys() == vectors.pretrained.keys()
    assert merged["steps"] == 7
    for name, stack in vectors.layers.items():
        update = naive(matrices_of(stack)) if name in MATRICES else stack.numpy().mean(axis=0)
        expected = vectors.pretrained[name].numpy() + scaling * update.reshape(SHAPES[name])
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=0, atol=1e-10, err_msg=name)


def assert_same(merged: dict[str, Tensor], expected: dict[str, Tensor], atol: float) -> None:
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=atol)


def procrustes(columns: np.ndarray) -> np.ndarray:
    """A (A^T A)^(-1/2), or (A A^T)^(-1/2) A if there are more columns than rows."""
    if columns.shape[1] > columns.shape[0]:
        return procrustes(columns.T).T
    values, vectors = np.linalg.eigh(columns.T @ columns)
    return columns @ vectors @ np.diag(values**-0.5) @ vectors.T


def naive_tsv(matrices: list[np.ndarray], rank: int | None = None) -> np.ndarray:
    if rank is None:
        rank = max(min(matrices[0].shape) // len(matrices), 1)
    decompositions = [np.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    u = procrustes(np.hstack([u[:, :rank] for u, _, _ in decompositions]))
    v = procrustes(np.hstack([vt[:rank].T for _, _, vt in decompositions]))
    s = np.concatenate([s[:rank] for _, s, _ in decompositions])
    return u @ np.diag(s) @ v.T


def naive_iso_c(matrices: list[np.ndarray]) -> np.ndarray:
    u, s, vt = np.linalg.svd(sum(matrices), full_matrices=False)
    return np.mean(s) * u @ vt


def naive_iso_cts(matrices: list[np.ndarray], common_share: float) -> np.ndarray:
    side, tasks = min(matrices[0].shape), len(matrices)
    own = min(round((side - int(common_share * side)) / tasks), side // tasks)
    common = side - tasks * own
    u, s, vt = np.linalg.svd(sum(matrices), full_matrices=False)
    us, ss, vs = [u[:, :common]], [s[:common]], [vt[:common].T]
    for matrix in matrices:
        left = matrix - us[0] @ us[0].T @ matrix
        u, s, vt = np.linalg.svd(left, full_matrices=False)
        us.append(u[:, :own])
        ss.append(s[:own])
        vs.append(vt[:own].T)
    return np.mean(np.concatenate(ss)) * procrustes(np.hstack(us)) @ procrustes(np.hstack(vs)).T


def naive_wudi_loss(merged: Tensor, matrices: list[Tensor]) -> Tensor:
    terms = [((merged - each) @ each.T).square().sum() / each.square().sum() for each in matrices]
    return torch.stack(terms).sum()


def naive_wudi(matrices: list[np.ndarray], steps: int, learning_rate: float) -> np.ndarray:
    """Adam as in its paper (arXiv 1412.6980, algorithm 1), the gradient by autograd."""
    tensors = [torch.from_numpy(matrix) for matrix in matrices]
    merged = sum(matrices)
    first = second = np.zeros_like(merged)
    for step in range(1, steps + 1):
        leaf = torch.tensor(merged, requires_grad=True)
        (gradient,) = torch.autograd.grad(naive_wudi_loss(leaf, tensors), leaf)
        first = 0.9 * first + 0.1 * gradient.numpy()
        second = 0.999 * second + 0.001 * gradient.numpy() ** 2
        moved = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        merged = merged - learning_rate * moved
    return merged


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("scaling", [1.0, 0.4])
def test_tsv_m_equals_numpy(tasks: int, scaling: float) -> None:
    vectors = random_vectors(tasks)
    check(tsv_m(vectors, scaling=scaling), vectors, naive_tsv, scaling)


@pytest.mark.parametrize("share", [0.15, 0.3, 0.7, 1.0])
def test_tsv_m_keeps_a_share_of_the_rank(share: float) -> None:
    vectors = random_vectors()
    check(
        tsv_m(vectors, rank_share=share),
        vectors,
        lambda matrices: naive_tsv(matrices, int(share * min(matrices[0].shape))),
        1.0,
    )


def test_tsv_m_of_more_tasks_than_a_matrix_has_ranks_keeps_one_each() -> None:
    vectors = random_vectors(tasks=10)
    assert len(vectors.task_names) > min(SHAPES["wide"])
    check(tsv_m(vectors), vectors, lambda matrices: naive_tsv(matrices, 1), 1.0)


def test_decorrelated_task_vectors_sum_to_tsv_m() -> None:
    vectors = random_vectors()
    decorrelated = tsv_decorrelate(vectors)
    assert decorrelated.layer_names == vectors.layer_names
    for name, tensor in tsv_m(vectors).items():
        if name in vectors.layers:
            total = decorrelated.layers[name].sum(dim=0)
            torch.testing.assert_close(vectors.pretrained[name] + total, tensor)


def test_decorrelated_task_vectors_are_orthogonal_and_keep_their_singular_values() -> None:
    vectors = random_vectors(tasks=3)
    for name in MATRICES:
        before = matrices_of(vectors.layers[name])
        after = matrices_of(tsv_decorrelate(vectors).layers[name])
        rank = min(before[0].shape) // 3
        for k, matrix in enumerate(after):
            expected = np.linalg.svd(before[k], compute_uv=False)[:rank]
            values = np.linalg.svd(matrix, compute_uv=False)
            np.testing.assert_allclose(values[:rank], expected)
            np.testing.assert_allclose(values[rank:], 0, atol=1e-12)
            for other in after[:k]:
                np.testing.assert_allclose(matrix.T @ other, 0, atol=1e-12)
                np.testing.assert_allclose(matrix @ other.T, 0, atol=1e-12)


def test_tsv_m_leaves_orthogonal_low_rank_task_vectors_as_they_are() -> None:
    stack = torch.zeros(2, 6, 6, dtype=torch.float64)
    stack[0, 0, 1], stack[0, 1, 0], stack[1, 2, 3] = 3.0, 2.0, 5.0
    vectors = TaskVectors({"layer": torch.zeros_like(stack[0])}, ("a", "b"), {"layer": stack})
    torch.testing.assert_close(tsv_decorrelate(vectors).layers["layer"], stack)


def test_tsv_m_of_twice_the_same_low_rank_task_vector_is_that_one() -> None:
    one = single(random_vectors(rank=1))
    twice = TaskVectors(
        one.pretrained, ("a", "b"), {n: torch.cat([s, s]) for n, s in one.layers.items()}
    )
    assert_same(tsv_m(twice), one.merge(torch.ones(1)), atol=1e-10)


@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize("scaling", [1.0, 1.5])
def test_iso_c_equals_numpy(tasks: int, scaling: float) -> None:
    vectors = random_vectors(tasks)
    check(iso_c(vectors, scaling=scaling), vectors, naive_iso_c, scaling)


@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_iso_cts_equals_numpy(tasks: int, share: float) -> None:
    vectors = random_vectors(tasks)
    check(
        iso_cts(vectors, scaling=1.2, common_share=share),
        vectors,
        lambda matrices: naive_iso_cts(matrices, share),
        1.2,
    )


def test_iso_cts_has_no_more_directions_than_the_matrix() -> None:
    # 11 directions of their own for 4 tasks round up to 12
    stack = torch.randn(4, 11, 14, generator=torch.Generator().manual_seed(0)).double()
    vectors = TaskVectors({"layer": torch.zeros(11, 14).double()}, tuple("abcd"), {"layer": stack})
    values = torch.linalg.svdvals(iso_cts(vectors, common_share=0.0)["layer"])
    torch.testing.assert_close(values, values.mean().expand(11))


@pytest.mark.parametrize("rule", [iso_c, iso_cts])
def test_isotropic_updates_have_one_singular_value(
    rule: Callable[..., dict[str, Tensor]],
) -> None:
    vectors = random_vectors()
    merged = rule(vectors)
    for name in MATRICES:
        (update,) = matrices_of((merged[name] - vectors.pretrained[name]).unsqueeze(0))
        values = np.linalg.svd(update, compute_uv=False)
        np.testing.assert_allclose(values, values[0])


def test_iso_cts_of_common_directions_only_or_of_one_task_is_iso_c() -> None:
    vectors = random_vectors()
    assert_same(iso_cts(vectors, common_share=1.0), iso_c(vectors), atol=1e-10)
    assert_same(iso_cts(single(vectors)), iso_c(single(vectors)), atol=1e-10)


def test_iso_c_fills_no_null_space() -> None:
    vectors = single(random_vectors(rank=1))  # one nonzero singular value is a flat spectrum
    assert_same(iso_c(vectors, scaling=1.0), vectors.merge(torch.ones(1)), atol=1e-10)


def test_iso_cts_of_tasks_within_the_common_subspace_is_iso_c() -> None:
    vectors = random_vectors(tasks=2, rank=1)
    assert_same(iso_cts(vectors, common_share=0.5), iso_c(vectors), atol=1e-9)


def test_wudi_equals_adam_on_the_naive_loss() -> None:
    vectors = random_vectors()
    merged = wudi(vectors, steps=20, learning_rate=0.01)
    check(merged, vectors, lambda matrices: naive_wudi(matrices, 20, 0.01), 1.0)


def test_wudi_with_the_published_settings_equals_adam_on_the_naive_loss() -> None:
    stack = random_vectors().layers["linear"] * 1e-3
    vectors = TaskVectors({"linear": torch.zeros_like(stack[0])}, tuple("abc"), {"linear": stack})
    expected = naive_wudi(matrices_of(stack), 300, 1e-5)
    np.testing.assert_allclose(wudi(vectors)["linear"].numpy(), expected, rtol=0, atol=1e-13)
    assert np.abs(expected - stack.sum(dim=0).numpy()).max() > 1e-4  # it did move


def test_wudi_ends_at_the_closed_form_minimiser_given_the_steps() -> None:
    vectors = random_vectors(tasks=4)
    tasks = matrices_of(vectors.layers["linear"])
    gram = sum(each.T @ each / np.sum(each**2) for each in tasks)
    target = sum(each @ each.T @ each / np.sum(each**2) for each in tasks)
    minimiser = target @ np.linalg.inv(gram)
    moved = wudi(vectors, steps=2000, learning_rate=0.02)["linear"] - vectors.pretrained["linear"]
    np.testing.assert_allclose(moved.numpy(), minimiser, atol=1e-4)


def test_quadratic_terms_give_the_gradient_of_the_naive_loss() -> None:
    stack = random_vectors().layers["wide"]
    merged = torch.randn(7, 20, generator=torch.Generator().manual_seed(1)).double()
    leaf = merged.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(naive_wudi_loss(leaf, list(stack)), leaf)
    gram, target = quadratic_terms(stack)
    torch.testing.assert_close(2 * (merged @ gram - target), gradient)


@pytest.mark.parametrize("rule", ["tsv_m", "wudi"])
def test_one_task_alone_gives_its_fine_tuned_model(rule: str) -> None:
    vectors = single(random_vectors())
    assert_same(RULES[rule](vectors), vectors.merge(torch.ones(1)), atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rank", [None, 2])
def test_the_order_of_the_tasks_does_not_matter(rule: str, rank: int | None) -> None:
    vectors = random_vectors(tasks=4, rank=rank)
    permuted = vectors.select(("task2", "task0", "task3", "task1"))
    assert_same(RULES[rule](permuted), RULES[rule](vectors), atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_zero_task_vectors_give_the_pretrained_model(rule: str) -> None:
    vectors = with_layers(random_vectors(), torch.zeros_like)
    merged = RULES[rule](vectors)
    assert all(torch.equal(merged[n], t) for n, t in vectors.pretrained.items())


@pytest.mark.parametrize("rule", ["tsv_m", "iso_c", "iso_cts", "wudi"])
def test_a_task_without_a_change_does_not_disturb_the_matrices(rule: str) -> None:
    vectors = random_vectors(tasks=2, rank=1)
    joined = with_layers(vectors, lambda stack: torch.cat([stack, torch.zeros_like(stack[:1])]))
    joined = TaskVectors(vectors.pretrained, ("a", "b", "idle"), joined.layers)
    merged, expected = RULES[rule](joined), RULES[rule](vectors)
    for name in MATRICES:
        torch.testing.assert_close(merged[name], expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_results_are_deterministic_and_inputs_unchanged(rule: str) -> None:
    vectors, again = random_vectors(), random_vectors()
    first, second = RULES[rule](vectors), RULES[rule](again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(vectors.layers[n], again.layers[n]) for n in again.layers)
    assert all(torch.equal(vectors.pretrained[n], again.pretrained[n]) for n in again.pretrained)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-3), (torch.float16, 0.05), (torch.bfloat16, 0.3)]
)
def test_the_dtype_is_kept(rule: str, dtype: torch.dtype, atol: float) -> None:
    exact = random_vectors()
    rounded = with_layers(exact, lambda stack: stack.to(dtype))
    pretrained = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in exact.pretrained.items()
    }
    merged = RULES[rule](TaskVectors(pretrained, exact.task_names, rounded.layers))
    for name, tensor in RULES[rule](exact).items():
        assert merged[name].dtype == pretrained[name].dtype
        torch.testing.assert_close(merged[name].to(tensor.dtype), tensor, rtol=0, atol=atol)


@pytest.mark.parametrize("rule", RULES)
def test_a_model_without_layers_stays_pretrained(rule: str) -> None:
    problem = tiny_problem()
    merged = RULES[rule](TaskVectors(problem.pretrained, ("a", "b"), {}))
    assert all(torch.equal(merged[n], t) for n, t in problem.pretrained.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_thin_svd_drops_the_null_space(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(shape[0], 5, generator=generator, dtype=torch.float64)
    right = torch.randn(5, shape[1], generator=generator, dtype=torch.float64)
    matrix = (left @ right).to(dtype)
    u, s, vt = thin_svd(matrix)
    assert int((s > 0).sum()) == 5
    assert not u[:, 5:].any()
    assert not vt[5:].any()
    torch.testing.assert_close(u * s @ vt, matrix, rtol=0, atol=1e-4)


def matrix_of_spectrum(shape: tuple[int, int], spectrum: np.ndarray) -> np.ndarray:
    """float64 [m, n] with these singular values and random singular vectors."""
    generator = np.random.default_rng(3)
    left, right = (np.linalg.qr(generator.normal(size=(side, len(spectrum))))[0] for side in shape)
    return (left * spectrum) @ right.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (16, 16)])
@pytest.mark.parametrize("rank", [None, 0, 1, 7])
def test_thin_svd_equals_numpy(
    dtype: torch.dtype, shape: tuple[int, int], rank: int | None
) -> None:
    """Of a batch: nothing, singular values over four decades, and a matrix of low rank."""
    spectra = [np.zeros(12), np.geomspace(3, 3e-4, 12), np.array([9.0, 5.0, 4.0])]
    matrices = np.stack([matrix_of_spectrum(shape, spectrum) for spectrum in spectra])
    u, s, vt = thin_svd(torch.from_numpy(matrices).to(dtype), rank)
    assert u.dtype == s.dtype == vt.dtype == dtype
    r = min(shape) if rank is None else rank
    assert (u.shape, s.shape, vt.shape) == ((3, shape[0], r), (3, r), (3, r, shape[1]))
    for k, spectrum in enumerate(spectra):
        kept = min(np.count_nonzero(spectrum), r)
        assert not u[k, :, kept:].any()
        assert not s[k, kept:].any()
        assert not vt[k, kept:].any()
        exact_u, exact_s, exact_vt = (
            torch.from_numpy(part) for part in np.linalg.svd(matrices[k], full_matrices=False)
        )
        relative = 1e-6 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(s[k, :kept].double(), exact_s[:kept], rtol=0, atol=10 * relative)
        # a triplet as a matrix: singular vectors alone are known up to their sign
        triplets = torch.einsum("ir,r,rj->rij", u[k].double(), s[k].double(), vt[k].double())
        exact = torch.einsum("ir,r,rj->rij", exact_u, exact_s, exact_vt)
        torch.testing.assert_close(triplets[:kept], exact[:kept], rtol=0, atol=20 * relative)


@pytest.mark.parametrize("shape", [(300, 120), (120, 300), (160, 160)])
def test_singular_vectors_in_float32_are_orthonormal_down_to_the_tolerance(
    shape: tuple[int, int],
) -> None:
    matrix = torch.from_numpy(matrix_of_spectrum(shape, np.geomspace(1e3, 1e-3, 120))).float()
    u, s, vt = (part.double() for part in thin_svd(matrix))
    kept = torch.diag((s > 0).double())
    assert 90 < int(kept.sum()) < 120  # five of the six decades
    torch.testing.assert_close(u.mT @ u, kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(vt @ vt.mT, kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(u * s @ vt, matrix.double(), rtol=0, atol=1e-2)


def test_polar_factor_of_a_matrix_without_rank_is_a_partial_isometry() -> None:
    columns = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)).double()
    isometry = polar_factor(torch.cat([columns, columns, torch.zeros(9, 1)], dim=1))
    projection = isometry @ isometry.T
    torch.testing.assert_close(projection @ projection, projection)
    torch.testing.assert_close(projection @ columns, columns)
    assert not isometry[:, 4].any()


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_rank_share_outside_its_range_is_refused(share: float) -> None:
    for function in (tsv_m, tsv_decorrelate):
        with pytest.raises(InputError, match=rule_for(share, r"\(0, 1\]")) as caught:
            function(random_vectors(), rank_share=share)
        assert f"rank_share = {share}" in str(caught.value)


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), float("inf")])
def test_common_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=rule_for(share, r"\[0, 1\]")) as caught:
        iso_cts(random_vectors(), common_share=share)
    assert f"common_share = {share}" in str(caught.value)


@pytest.mark.parametrize("rule", ["tsv_m", "iso_c", "iso_cts"])
@pytest.mark.parametrize("scaling", [float("nan"), float("inf")])
def test_a_scaling_that_is_not_finite_is_refused(rule: str, scaling: float) -> None:
    with pytest.raises(InputError, match="finite"):
        RULES[rule](random_vectors(), scaling=scaling)


@pytest.mark.parametrize(
    ("counts", "rates"),
    [((0, -3), (0, -1e-5)), ((2.5, "3", True, 10**30), (float("nan"), float("inf"), True))],
    ids=["of their types", "of other types"],
)
def test_settings_of_wudi_outside_their_range_are_refused_together(
    counts: tuple[object, ...], rates: tuple[object, ...]
) -> None:
    for steps in counts:
        for rate in rates:
            with pytest.raises(InputError, match="2 faults") as caught:
                wudi(random_vectors(), steps=steps, learning_rate=rate)  # type: ignore[arg-type]
            assert f"steps = {steps!r}" in str(caught.value)
            assert f"learning_rate = {rate}" in str(caught.value)
