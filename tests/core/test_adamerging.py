"""AdaMerging against its formula written naively: differentiate through the merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    CLASSES,
    Problem,
    TinyEncoder,
    naive_adaptation,
    naive_entropies,
    naive_entropy,
    naive_trimmed_vectors,
    naive_vectors,
    tiny_problem,
)
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.func import functional_call

from adamerge_core.adamerging import (
    AdaptationSettings,
    Engine,
    LossAndGradient,
    adapt,
)
from adamerge_core.batches import batch_indices, take
from adamerge_core.entropy import softmax_entropy
from adamerge_core.errors import InputError
from adamerge_core.merging import BEFORE, trim_and_elect
from adamerge_core.task_vectors import TaskVectors

VARIANTS = [
    pytest.param(granularity, plus_plus, id=granularity + ("_pp" if plus_plus else ""))
    for granularity in ("task_wise", "layer_wise")
    for plus_plus in (False, True)
]
KEEP = 0.2
LAYERS = 5


def make_engine(problem: Problem, plus_plus: bool, micro_batch: int | None = None) -> Engine:
    vectors = problem.task_vectors
    chosen = trim_and_elect(vectors, KEEP) if plus_plus else vectors
    return Engine(TinyEncoder(), chosen, problem.heads, micro_batch)


def reference_vectors(problem: Problem, plus_plus: bool) -> dict[str, dict[str, np.ndarray]]:
    return naive_trimmed_vectors(problem, KEEP) if plus_plus else naive_vectors(problem)


def shape_of(granularity: str) -> tuple[int, ...]:
    return (len(CLASSES),) if granularity == "task_wise" else (LAYERS, len(CLASSES))


def random_coefficients(granularity: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape_of(granularity), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("granularity", "plus_plus"), VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_equals_differentiating_through_the_merge(
    granularity: str, plus_plus: bool, seed: int
) -> None:
    problem = tiny_problem(seed)
    coefficients = random_coefficients(granularity, seed).requires_grad_()
    vectors = reference_vectors(problem, plus_plus)
    expected = naive_entropies(problem, vectors, coefficients, problem.images)
    (expected_gradient,) = torch.autograd.grad(sum(expected.values()), coefficients)

    losses, entropies, gradient = make_engine(problem, plus_plus).loss_and_gradient(
        coefficients.detach(), problem.images
    )
    assert losses == entropies
    assert list(entropies) == list(CLASSES)
    for name, value in expected.items():
        assert entropies[name] == pytest.approx(value.item(), rel=1e-12)
    assert gradient.dtype == torch.float64
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-13)


NUMBERS = {"convolution": 0, "hidden": 3, "projection": 5}
"""Of the tiny encoder's modules in `numbered_encoder`."""


def numbered_encoder() -> nn.Sequential:
    """The tiny encoder with numbers for names, from which scale_by_depth knows the depth."""
    modules = (nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 7), nn.Tanh())
    return nn.Sequential(*modules, nn.Linear(7, 6)).double()


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = {name: name.split(".") for name in state if "." in name}
    return {f"{NUMBERS[module]}.{kind}": state[n] for n, (module, kind) in parts.items()}


@pytest.mark.parametrize("granularity", ["task_wise", "layer_wise"])
@pytest.mark.parametrize("name", sorted(BEFORE))
def test_the_gradient_over_every_preprocessing_is_autograd_s(name: str, granularity: str) -> None:
    problem = tiny_problem(seed=4)
    finetuned = {task_name: numbered(state) for task_name, state in problem.finetuned.items()}
    plain = TaskVectors.from_checkpoints(numbered(problem.pretrained), finetuned)
    vectors = BEFORE[name](plain)
    assert any(not torch.equal(vectors.layers[n], stack) for n, stack in plain.layers.items())
    coefficients = random_coefficients(granularity, 4).requires_grad_()
    rows = coefficients.expand(LAYERS, len(CLASSES))
    merged = dict(vectors.pretrained)
    for row, (layer_name, stack) in zip(rows, vectors.layers.items(), strict=True):
        for weight, vector in zip(row, stack, strict=True):
            merged[layer_name] = merged[layer_name] + weight * vector
    encoder = numbered_encoder()
    expected = {
        task_name: naive_entropy(head(functional_call(encoder, merged, problem.images[task_name])))
        for task_name, head in problem.heads.items()
    }
    (expected_gradient,) = torch.autograd.grad(sum(expected.values()), coefficients)

    engine = Engine(encoder, vectors, problem.heads, micro_batch=8)
    result = engine.loss_and_gradient(coefficients.detach(), problem.images)
    assert result.loss == pytest.approx({n: v.item() for n, v in expected.items()}, rel=1e-11)
    assert expected_gradient.abs().max() > 1e-3
    torch.testing.assert_close(result.gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@given(micro_batch=st.integers(1, 45), seed=st.integers(0, 3), variant=st.sampled_from(VARIANTS))
@settings(deadline=None, max_examples=30)
def test_micro_batches_of_any_size_give_the_same(micro_batch: int, seed: int, variant) -> None:
    granularity, plus_plus = variant.values
    problem = tiny_problem(seed)
    coefficients = random_coefficients(granularity, seed)
    whole, _, gradient = make_engine(problem, plus_plus).loss_and_gradient(
        coefficients, problem.images
    )
    parts, _, gradient_of_parts = make_engine(problem, plus_plus, micro_batch).loss_and_gradient(
        coefficients, problem.images
    )
    assert parts == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(gradient_of_parts, gradient, rtol=1e-10, atol=1e-13)


def test_a_compiled_encoder_gives_the_same() -> None:
    problem = tiny_problem()
    engine, coefficients = make_engine(problem, False, 5), random_coefficients("layer_wise", 0)
    _, _, expected = engine.loss_and_gradient(coefficients, problem.images)
    engine.encoder.compile(backend="aot_eager")
    for factor in (1.0, 0.5, 1.0):  # what was compiled for one merged model serves the next
        _, _, gradient = engine.loss_and_gradient(factor * coefficients, problem.images)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


def test_a_compiled_backward_pass_may_use_the_memory_of_its_gradients_again() -> None:
    """As CUDA graphs do, micro-batch after micro-batch."""
    problem = tiny_problem()
    engine, coefficients = make_engine(problem, False, 5), random_coefficients("layer_wise", 0)
    _, _, expected = engine.loss_and_gradient(coefficients, problem.images)
    engine.encoder.compile(backend=aot_autograd(fw_compiler=interpreted, bw_compiler=in_one_place))
    for _ in range(2):
        _, _, gradient = engine.loss_and_gradient(coefficients, problem.images)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


def interpreted(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
    return make_boxed_func(graph.forward)


def in_one_place(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
    """Every call writes over the tensors that the one before gave."""
    kept: list[Tensor | None] = []

    def call(*arguments: Any) -> list[Tensor | None]:
        results = graph(*arguments)
        if not kept:
            kept.extend(None if result is None else result.clone() for result in results)
        for place, result in zip(kept, results, strict=True):
            if place is not None:
                place.copy_(result)
        return [None if place is None else place.detach() for place in kept]

    return make_boxed_func(call)


@pytest.mark.parametrize(("granularity", "plus_plus"), VARIANTS)
@pytest.mark.parametrize("learning_rate", [1e-3, 0.15])
def test_fifty_steps_equal_adam_on_the_naive_formula(
    granularity: str, plus_plus: bool, learning_rate: float
) -> None:
    problem = tiny_problem(seed=2)
    chosen = AdaptationSettings(granularity, 50, 4, learning_rate, batches_per_step=1)
    vectors = reference_vectors(problem, plus_plus)

    def losses_of(coefficients: Tensor, rows: dict[str, np.ndarray]) -> dict[str, Tensor]:
        images = {name: pixels[rows[name]] for name, pixels in problem.images.items()}
        return naive_entropies(problem, vectors, coefficients, images)

    rows = {name: np.arange(len(pixels)) for name, pixels in problem.images.items()}
    start = torch.full(shape_of(granularity), chosen.start, dtype=torch.float64)
    losses, coefficients = naive_adaptation(losses_of, rows, start, chosen, seed=3)
    engine = make_engine(problem, plus_plus)
    steps = list(adapt(engine, problem.images, chosen, seed=3))
    assert [step.step for step in steps] == list(range(1, 51))
    for step, loss, expected in zip(steps, losses, coefficients, strict=True):
        assert step.entropy == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(step.coefficients, expected, rtol=0, atol=1e-9)
        assert step.coefficients.dtype == torch.float64
    everything = torch.stack([step.coefficients for step in steps])
    if learning_rate > 0.1:  # both bounds are reached
        assert everything.min() == 0
        assert everything.max() == 1
    else:
        assert (everything[-1] - chosen.start).abs().max() > 10 * learning_rate


def test_a_coefficient_outside_its_range_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a constant pull, coefficients pass the edge by Adam's momentum alone and stay there."""
    problem = tiny_problem()
    engine = make_engine(problem, plus_plus=False)
    chosen = AdaptationSettings("task_wise", 60, 4, 0.2, start=0.9, batches_per_step=1)
    pull = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64)
    ones = dict.fromkeys(CLASSES, 1.0)
    result = LossAndGradient(ones, ones, pull)
    monkeypatch.setattr(engine, "loss_and_gradient", lambda *_, **__: result)
    steps = [step.coefficients for step in adapt(engine, problem.images, chosen, seed=0)]

    leaf = torch.full((3,), 0.9, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([leaf], lr=0.2)
    for coefficients in steps:
        adam.zero_grad()
        (leaf.clamp(0, 1) * pull).sum().backward()
        outside = (leaf < 0) | (leaf > 1)
        assert (leaf.grad[outside] == 0).all()
        adam.step()
        torch.testing.assert_close(coefficients, leaf.detach().clamp(0, 1), rtol=0, atol=1e-12)
    assert steps[-1].tolist() == [1, 0, 0.9]


def test_adaptation_lowers_the_entropy_and_leaves_the_inputs_alone() -> None:
    problem = tiny_problem()
    vectors = problem.task_vectors
    before = {name: stack.clone() for name, stack in vectors.layers.items()}
    start = {name: tensor.clone() for name, tensor in problem.pretrained.items()}
    engine = Engine(TinyEncoder(), vectors, problem.heads)
    chosen = AdaptationSettings("layer_wise", 40, 100, learning_rate=0.02)
    steps = list(adapt(engine, problem.images, chosen, seed=0))
    assert sum(steps[-1].entropy.values()) < sum(steps[0].entropy.values()) - 0.05
    assert all(torch.equal(vectors.layers[name], stack) for name, stack in before.items())
    assert all(torch.equal(problem.pretrained[name], tensor) for name, tensor in start.items())


def test_images_may_be_arrays_on_disk(tmp_path: Path) -> None:
    problem = tiny_problem()
    files = {name: tmp_path / f"{name}.npy" for name in CLASSES}
    for name, path in files.items():
        np.save(path, problem.images[name].numpy())
    mapped = {name: np.load(path, mmap_mode="r") for name, path in files.items()}
    chosen = AdaptationSettings("layer_wise", 5, 4)
    engine = make_engine(problem, plus_plus=False)
    in_memory = list(adapt(engine, problem.images, chosen, seed=1))
    on_disk = list(adapt(engine, mapped, chosen, seed=1))
    assert all(
        torch.equal(a.coefficients, b.coefficients) for a, b in zip(in_memory, on_disk, strict=True)
    )


def test_the_encoder_holds_the_merged_model_and_buffers_have_no_gradient() -> None:
    """A floating buffer that fine-tuning changed is merged, but there is no gradient in it."""

    class Normalised(TinyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) - self.mean

    problem = tiny_problem()
    pretrained = {**problem.pretrained, "mean": torch.zeros(6, dtype=torch.float64)}
    names = [n for n, _ in Normalised().named_parameters()]
    finetuned = {
        name: {**state, "mean": torch.full((6,), float(k), dtype=torch.float64)}
        for k, (name, state) in enumerate(problem.finetuned.items())
    }
    vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    encoder = Normalised()
    engine = Engine(encoder, vectors, problem.heads)
    coefficients = random_coefficients("layer_wise", 0).repeat(2, 1)[: LAYERS + 1]
    gradient = engine.loss_and_gradient(coefficients, problem.images).gradient
    merged = vectors.merge(coefficients)
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-14, atol=1e-15)
    rows = dict(zip(vectors.layer_names, gradient, strict=True))
    assert (rows["mean"] == 0).all()
    assert all((rows[name] != 0).all() for name in names if name in rows)


@given(stops=st.lists(st.integers(1, 14), max_size=2), save_every=st.integers(1, 8))
@settings(deadline=None, max_examples=8)
def test_interrupted_and_resumed_adaptation_is_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], save_every: int
) -> None:
    state = tmp_path_factory.mktemp("resume") / "state.safetensors"
    problem = tiny_problem()
    chosen = AdaptationSettings("layer_wise", 15, 4, learning_rate=0.05)
    engine = make_engine(problem, plus_plus=False)
    whole = {step.step: step for step in adapt(engine, problem.images, chosen, seed=2)}
    for stop in stops:
        fresh = make_engine(problem, plus_plus=False)
        for step in adapt(fresh, problem.images, chosen, 2, state, save_every):
            if step.step >= stop:
                break
    rest = list(adapt(engine, problem.images, chosen, 2, state, save_every))
    saved = (max(stops, default=1) - 1) // save_every * save_every
    assert [step.step for step in rest] == list(range(saved + 1, 16))
    for step in rest:
        assert torch.equal(step.coefficients, whole[step.step].coefficients)
        assert step.entropy == whole[step.step].entropy


@pytest.mark.parametrize("save_every", [1, 5, 10])
def test_a_finished_adaptation_yields_its_last_step_again(tmp_path: Path, save_every: int) -> None:
    problem = tiny_problem()
    chosen = AdaptationSettings("task_wise", 10, 4)
    state = tmp_path / "state.safetensors"
    engine = make_engine(problem, plus_plus=False)
    first = list(adapt(engine, problem.images, chosen, 0, state, save_every))
    again = list(adapt(engine, problem.images, chosen, 0, state, save_every))
    assert again[-1].step == first[-1].step == 10
    assert torch.equal(again[-1].coefficients, first[-1].coefficients)


def test_seeds_give_different_batches() -> None:
    problem = tiny_problem()
    chosen = AdaptationSettings("task_wise", 3, 4)
    engine = make_engine(problem, plus_plus=False)
    entropies = [
        [step.entropy for step in adapt(engine, problem.images, chosen, seed)] for seed in (0, 0, 1)
    ]
    assert entropies[0] == entropies[1]
    assert entropies[0] != entropies[2]


@given(
    count=st.integers(1, 30),
    batch=st.integers(1, 40),
    seed=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
)
@settings(deadline=None, max_examples=60)
def test_every_epoch_of_batches_is_a_permutation(
    count: int, batch: int, seed: tuple[int, ...]
) -> None:
    steps = [batch_indices(count, batch, step, seed) for step in range(3 * count)]
    assert all(len(step) == batch for step in steps)
    drawn = np.concatenate(steps)
    epochs = drawn[: len(drawn) // count * count].reshape(-1, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    np.testing.assert_array_equal(batch_indices(count, batch, 2 * count, seed), steps[2 * count])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        batch_indices(50, 50, step, seed).tolist()
        for seed in ((0, 0), (0, 1), (1, 0))
        for step in range(3)
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_take_gives_the_rows_of_tensors_and_arrays() -> None:
    tensor = torch.arange(12.0).reshape(6, 2)
    array = tensor.numpy().copy()
    array.flags.writeable = False
    for rows in (np.array([4, 0, 4]), slice(1, 3)):
        expected = torch.from_numpy(array.copy()[rows])
        assert torch.equal(take(tensor, rows), expected)
        assert torch.equal(take(array, rows), expected)


def test_every_fault_of_an_adaptation_is_listed() -> None:
    problem = tiny_problem()
    engine = make_engine(problem, plus_plus=False)
    chosen = AdaptationSettings("per_layer", 0, -1, 0.0, 1.5)
    images = {"digits": problem.images["digits"], "signs": problem.images["signs"][:0]}
    with pytest.raises(InputError) as caught:
        next(adapt(engine, images, chosen, seed=0))
    message = str(caught.value)
    assert "7 faults" in message
    for part in (
        "granularity = 'per_layer': must be one of task_wise, layer_wise",
        "steps = 0: must be at least 1",
        "images_per_task = -1: must be at least 1",
        "learning_rate = 0.0: must be above 0",
        "start = 1.5: must be in [0, 1]",
        "task letters has no images",
        "images of task signs: the value holds 0 images",
    ):
        assert part in message


def test_task_vectors_without_layers_cannot_be_adapted() -> None:
    problem = tiny_problem()
    copies = {name: dict(problem.pretrained) for name in CLASSES}
    vectors = TaskVectors.from_checkpoints(problem.pretrained, copies)
    engine = Engine(TinyEncoder(), vectors, problem.heads)
    with pytest.raises(InputError, match="no task changed any tensor"):
        next(adapt(engine, problem.images, AdaptationSettings(), seed=0))


def test_every_misfit_of_encoder_and_heads_is_listed() -> None:
    problem = tiny_problem()
    encoder = TinyEncoder()
    encoder.extra = nn.Linear(1, 1)
    encoder.hidden = nn.Linear(27, 8)
    del encoder.projection
    heads = {"letters": problem.heads["letters"]}
    with pytest.raises(InputError) as caught:
        Engine(encoder, problem.task_vectors, heads)
    message = str(caught.value)
    for part in (
        "the encoder has no tensor projection.weight",
        "the encoder has no tensor projection.bias",
        "the pretrained model has no tensor extra.weight",
        "tensor hidden.weight is [8, 27] in the encoder, [7, 27] in the pretrained model",
        "task digits has no head",
        "task signs has no head",
    ):
        assert part in message
    assert "letters" not in message


def test_what_is_on_another_device_than_the_encoder_is_listed(tmp_path: Path) -> None:
    problem = tiny_problem()
    vectors = problem.task_vectors
    paths = {name: tmp_path / name for name in CLASSES}
    vectors.save(paths)
    heads = {**problem.heads, "signs": nn.Linear(6, 2, device="meta")}
    in_files = TaskVectors.open(problem.pretrained, paths)
    for displaced in (vectors.to("meta"), in_files.to("meta")):
        with pytest.raises(InputError) as caught:
            Engine(TinyEncoder(), displaced, heads)
        message = str(caught.value)
        assert "3 faults" in message
        for part in ("head signs is", "the task vectors are", "the pretrained layers are"):
            assert f"{part} on meta, the encoder's first parameter on cpu; move all to" in message
    encoder = TinyEncoder()
    encoder.hidden.to("meta")
    with pytest.raises(InputError, match="the encoder's layers are on cpu, meta, "):
        Engine(encoder, vectors, problem.heads)


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_heads_that_could_be_trained_are_frozen(micro_batch: int | None) -> None:
    coefficients = random_coefficients("layer_wise", 0)
    engine = make_engine(tiny_problem(), False, micro_batch)
    expected = engine.loss_and_gradient(coefficients, tiny_problem().images)
    problem = tiny_problem()
    for head in problem.heads.values():
        head.train().requires_grad_()
    engine = make_engine(problem, False, micro_batch)
    result = engine.loss_and_gradient(coefficients, problem.images)
    assert torch.equal(result.gradient, expected.gradient)
    for head in problem.heads.values():
        assert not head.training
        assert [parameter.grad for parameter in head.parameters()] == [None, None]
    needed = {name for name, tensor in engine.encoder.named_parameters() if tensor.requires_grad}
    assert needed == set(problem.task_vectors.layer_names)


def numpy_entropy(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


@given(logits=st.lists(st.floats(-300, 300), min_size=1, max_size=12), rows=st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_softmax_entropy_equals_numpy_and_keeps_its_bounds(logits: list[float], rows: int) -> None:
    values = np.array([logits] * rows)
    entropy = softmax_entropy(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(entropy, numpy_entropy(values), rtol=1e-9, atol=1e-12)
    assert (entropy >= 0).all()
    assert (entropy <= np.log(len(logits)) + 1e-12).all()


def test_softmax_entropy_of_equal_logits_is_the_logarithm_of_their_number() -> None:
    for classes in (1, 2, 10, 397):
        entropy = softmax_entropy(torch.full((2, 3, classes), 5.0, dtype=torch.float64))
        assert entropy.shape == (2, 3)
        torch.testing.assert_close(
            entropy, torch.full((2, 3), np.log(classes), dtype=torch.float64)
        )
