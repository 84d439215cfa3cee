"""AdaRank against its formula written naively: differentiate through the masked merge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import (
    CLASSES,
    Problem,
    TinyEncoder,
    naive_adaptation,
    naive_entropy,
    naive_logits,
    naive_trimmed_vectors,
    naive_vectors,
    tiny_problem,
)
from torch import Tensor

from adamerge_core.adamerging import PRESETS, AdaptationSettings, Engine, SingularMasks, adapt
from adamerge_core.errors import InputError
from adamerge_core.merging import trim_and_elect
from adamerge_core.task_vectors import TaskVectors

MATRICES = {"convolution.weight": 3, "hidden.weight": 7, "projection.weight": 6}
"""The matrix layers of the tiny encoder and their number of components, min(out, in)."""
LAYERS = 5


def naive_masked_merge(
    problem: Problem,
    parameters: Tensor,
    temperature: float,
    vectors_of: Callable[[Problem], dict[str, dict[str, np.ndarray]]] = naive_vectors,
) -> dict[str, Tensor]:
    """theta_pre + sum_k lambda_k U_k diag(s_k b_k) V_k^T, component by component."""
    vectors = vectors_of(problem)
    coefficients = parameters[: LAYERS * len(CLASSES)].reshape(LAYERS, len(CLASSES))
    logits, end = {}, LAYERS * len(CLASSES)
    names = list(vectors["digits"])
    for name in names:
        if name in MATRICES:
            count = len(CLASSES) * MATRICES[name]
            logits[name] = parameters[end : end + count].reshape(len(CLASSES), -1)
            end += count
    merged = dict(problem.pretrained)
    for k, vector in enumerate(vectors.values()):
        for layer, name in enumerate(names):
            update = torch.as_tensor(vector[name])
            if name in MATRICES:
                u, s, vt = np.linalg.svd(
                    vector[name].reshape(len(vector[name]), -1), full_matrices=False
                )
                update = torch.zeros(vector[name].shape, dtype=torch.float64)
                for i, value in enumerate(s):
                    soft = 1 / (1 + torch.exp(-logits[name][k, i] / temperature))
                    hard = soft + ((soft > 0.5).double() - soft).detach()
                    component = value * np.outer(u[:, i], vt[i]).reshape(vector[name].shape)
                    update = update + hard * torch.as_tensor(component)
            merged[name] = merged[name] + coefficients[layer, k] * update
    return merged


def naive_losses(
    problem: Problem, temperature: float, parameters: Tensor, rows: dict[str, np.ndarray]
) -> dict[str, Tensor]:
    state = naive_masked_merge(problem, parameters, temperature)
    images = {name: pixels[rows[name]] for name, pixels in problem.images.items()}
    logits = naive_logits(problem, state, images)
    return {name: naive_entropy(each) for name, each in logits.items()}


def make_engine(problem: Problem, **options: float) -> Engine:
    return Engine(
        TinyEncoder(),
        problem.task_vectors,
        problem.heads,
        parameterisation=partial(SingularMasks, **options),
    )


def all_rows(problem: Problem) -> dict[str, np.ndarray]:
    return {name: np.arange(len(pixels)) for name, pixels in problem.images.items()}


@pytest.mark.parametrize("temperature", [0.3, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_equals_differentiating_through_the_masked_merge(
    seed: int, temperature: float
) -> None:
    problem = tiny_problem(seed)
    generator = torch.Generator().manual_seed(seed)
    count = LAYERS * 3 + 3 * sum(MATRICES.values())
    parameters = torch.randn(count, generator=generator, dtype=torch.float64).requires_grad_()
    expected = naive_losses(problem, temperature, parameters, all_rows(problem))
    (expected_gradient,) = torch.autograd.grad(sum(expected.values()), parameters)
    engine = make_engine(problem, temperature=temperature)
    loss, _, gradient = engine.loss_and_gradient(parameters.detach(), problem.images)
    assert loss == pytest.approx({n: v.item() for n, v in expected.items()}, rel=1e-10)
    assert gradient[LAYERS * 3 :].abs().max() > 1e-4
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-12)
    merged = naive_masked_merge(problem, parameters.detach(), temperature)
    for name, tensor in engine.encoder.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-9, atol=1e-12)


def test_the_gradient_over_preprocessed_task_vectors_is_autograd_s() -> None:
    problem, temperature = tiny_problem(seed=3), 2.0
    generator = torch.Generator().manual_seed(3)
    count = LAYERS * 3 + 3 * sum(MATRICES.values())
    parameters = torch.randn(count, generator=generator, dtype=torch.float64).requires_grad_()
    trimmed = partial(naive_trimmed_vectors, keep=0.5)
    merged = naive_masked_merge(problem, parameters, temperature, trimmed)
    logits = naive_logits(problem, merged, problem.images)
    loss = sum(naive_entropy(each) for each in logits.values())
    (expected,) = torch.autograd.grad(loss, parameters)
    engine = Engine(
        TinyEncoder(),
        trim_and_elect(problem.task_vectors, keep=0.5),
        problem.heads,
        micro_batch=9,
        parameterisation=partial(SingularMasks, temperature=temperature),
    )
    result = engine.loss_and_gradient(parameters.detach(), problem.images)
    assert sum(result.loss.values()) == pytest.approx(loss.item(), rel=1e-10)
    assert expected[LAYERS * 3 :].abs().max() > 1e-4
    torch.testing.assert_close(result.gradient, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.bfloat16, 6e-2), (torch.float16, 8e-3), (torch.float32, 2e-4), (torch.float64, 1e-9)],
)
def test_a_gpu_merges_and_differentiates_as_the_cpu_does(
    dtype: torch.dtype, tolerance: float
) -> None:
    problem = tiny_problem().to(dtype)
    on = {device: problem.task_vectors.to(device) for device in ("cpu", "cuda")}
    generator = torch.Generator().manual_seed(0)
    gradients = {
        name: torch.randn(stack.shape[1:], generator=generator).to(dtype)
        for name, stack in on["cpu"].layers.items()
    }
    count = LAYERS * 3 + 3 * sum(MATRICES.values())
    parameters = torch.randn(count, generator=generator, dtype=torch.float64)
    merged, pulled = {}, {}
    for device, vectors in on.items():
        masks = SingularMasks(vectors)
        merged[device] = {n: torch.empty_like(vectors.pretrained[n]) for n in vectors.layers}
        masks.merge_into(merged[device], parameters)
        moved = {name: tensor.to(device) for name, tensor in gradients.items()}
        pulled[device] = masks.pull_back(moved, parameters)
    for name, tensor in merged["cuda"].items():
        assert (tensor.device.type, tensor.dtype) == ("cuda", dtype)
        torch.testing.assert_close(
            tensor.cpu(), merged["cpu"][name], rtol=tolerance, atol=tolerance
        )
    assert pulled["cuda"].device.type == "cpu"
    torch.testing.assert_close(pulled["cuda"], pulled["cpu"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rank_share", [1.0, 0.5])
def test_fifty_steps_equal_adam_on_the_naive_formula(rank_share: float) -> None:
    problem = tiny_problem(seed=1, images=5)
    chosen = AdaptationSettings(
        "singular_components", 50, 4, 0.05, batches_per_step=1, clamp="none"
    )
    logits = [
        0.1 if i < int(rank_share * rank) else -0.1
        for rank in MATRICES.values()
        for _ in CLASSES
        for i in range(rank)
    ]
    start = torch.tensor([0.3] * LAYERS * 3 + logits, dtype=torch.float64)
    losses, expected = naive_adaptation(
        partial(naive_losses, problem, 10.0), all_rows(problem), start, chosen, seed=2
    )
    engine = make_engine(problem, rank_share=rank_share)
    steps = list(adapt(engine, problem.images, chosen, seed=2))
    for step, loss, parameters in zip(steps, losses, expected, strict=True):
        assert step.loss == pytest.approx(loss, rel=1e-7)
        torch.testing.assert_close(step.coefficients, parameters, rtol=0, atol=1e-7)
    masks = engine.parameterisation.masks(steps[-1].coefficients)
    before = engine.parameterisation.masks(start)
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        name: (3, rank) for name, rank in MATRICES.items()
    }
    assert any(not torch.equal(masks[name], before[name]) for name in masks)
    coefficients = engine.parameterisation.coefficients(steps[-1].coefficients)
    torch.testing.assert_close(
        coefficients.flatten(), expected[-1][: LAYERS * 3], atol=1e-7, rtol=0
    )


def test_all_components_kept_is_task_arithmetic() -> None:
    problem = tiny_problem()
    engine = make_engine(problem)
    engine.merge(engine.parameterisation.start("singular_components", 0.3))
    expected = problem.task_vectors.merge(torch.full((3,), 0.3, dtype=torch.float64))
    for name, tensor in engine.encoder.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-12)


def test_half_precision_task_vectors_are_decomposed_in_float32() -> None:
    problem = tiny_problem()
    halves = {name: tensor.bfloat16() for name, tensor in problem.pretrained.items()}
    halves["batches_seen"] = problem.pretrained["batches_seen"]
    layers = {n: stack.bfloat16() for n, stack in problem.task_vectors.layers.items()}
    masks = SingularMasks(TaskVectors(halves, tuple(CLASSES), layers))
    start = masks.start("singular_components", 1.0)
    merged = {name: torch.zeros_like(halves[name]) for name in layers}
    masks.merge_into(merged, start)
    for name, stack in layers.items():
        expected = halves[name].float() + stack.float().sum(dim=0)
        torch.testing.assert_close(merged[name].float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("stop", [3, 7])
def test_interrupted_and_resumed_is_bit_equal(tmp_path: Path, stop: int) -> None:
    problem = tiny_problem()
    chosen = AdaptationSettings(
        "singular_components", 9, 3, 0.05, batches_per_step=1, clamp="none", held_out_share=0.3,
        measure_every=2,
    )  # fmt: skip
    whole = list(adapt(make_engine(problem), problem.images, chosen, seed=1))
    state = tmp_path / "state.safetensors"
    for step in adapt(make_engine(problem), problem.images, chosen, 1, state, save_every=2):
        if step.step == stop:
            break
    rest = list(adapt(make_engine(problem), problem.images, chosen, 1, state, save_every=2))
    assert len(rest) < len(whole)
    for resumed, expected in zip(reversed(rest), reversed(whole), strict=False):
        assert torch.equal(resumed.coefficients, expected.coefficients)
        assert resumed.held_out_entropy == expected.held_out_entropy
    warmer = make_engine(problem, temperature=20.0)
    with pytest.raises(InputError, match=r"temperature is 10\.0 in the file, 20\.0 here"):
        next(adapt(warmer, problem.images, chosen, 1, state))


def test_the_preset_is_the_published_code_s() -> None:
    preset = PRESETS["adarank"]
    assert preset.faults() == []
    assert (preset.steps, preset.images_per_task, preset.batches_per_step) == (10_000, 16, 1)
    assert (preset.learning_rate, preset.start, preset.clamp) == (1e-3, 0.3, "none")
    masks = SingularMasks(tiny_problem().task_vectors)
    assert (masks.rank_share, masks.temperature) == (1.0, 10.0)


def test_what_does_not_fit_is_refused() -> None:
    problem = tiny_problem()
    with pytest.raises(InputError, match="2 faults"):
        make_engine(problem, rank_share=float("nan"), temperature=0.0)
    chosen = AdaptationSettings("singular_components")
    with pytest.raises(InputError, match="clamp = 'published'"):
        next(adapt(make_engine(problem), problem.images, chosen, 0))
    with pytest.raises(InputError, match="learns singular_components; set one of these"):
        next(adapt(make_engine(problem), problem.images, AdaptationSettings(), 0))
    plain = Engine(TinyEncoder(), problem.task_vectors, problem.heads)
    with pytest.raises(InputError, match="learns task_wise or layer_wise"):
        next(adapt(plain, problem.images, PRESETS["adarank"], 0))
