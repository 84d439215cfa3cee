"""Fisher information, Gram matrices and the rules that merge by them, against their formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP
from small_models import CLASSES, UNCHANGED, Problem, TinyEncoder, rule_for, tiny_problem
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.merging import RULES, weight_averaging
from adamerge_core.merging.fisher import fisher_merging
from adamerge_core.merging.regmean import regmean
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling

Statistics = dict[str, dict[str, Tensor]]
Rule = Callable[[TaskVectors, Statistics], dict[str, Tensor]]

ALL = max(CLASSES.values())
"""As many probes as make the Fisher information of every tiny task exact."""

MINI = "efficientnet_lite0_clip"


def loaded(problem: Problem, task_name: str) -> TinyEncoder:
    problem.encoder.load_state_dict(problem.finetuned[task_name])
    return problem.encoder


def vision_transformer() -> nn.Module:
    """open_clip's image tower in float64: 32 x 32 pixels, 2 blocks of width 24, 3 heads."""
    torch.manual_seed(0)
    vision = {"layers": 2, "width": 24, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    return CLIP(embed_dim=10, vision_cfg=vision, text_cfg=text).visual.double().eval()


def pixels(count: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def naive_fisher(encoder: nn.Module, head: nn.Module, images: Tensor) -> dict[str, np.ndarray]:
    """Mean over images of sum_y p(y|x) (d log p(y|x) / d theta)^2, one backward pass for each."""
    result = {name: np.zeros(tuple(p.shape)) for name, p in encoder.named_parameters()}
    for image in images:
        probabilities = head(encoder(image[None]))[0].softmax(dim=0)
        for probability in probabilities:
            encoder.zero_grad()
            probability.log().backward(retain_graph=True)
            for name, parameter in encoder.named_parameters():
                if parameter.grad is not None:
                    square = parameter.grad.numpy().astype(np.float64) ** 2
                    result[name] += probability.item() * square / len(images)
    encoder.zero_grad()
    return result


def naive_patches(maps: np.ndarray, convolution: nn.Conv2d, sides: list[list[int]]) -> np.ndarray:
    """[rows, in]: what the kernel covers, position by position; sides: padding before, after."""
    padded = np.pad(maps, [(0, 0), (0, 0), *sides])
    (down, right), (dy, dx) = convolution.stride, convolution.dilation
    height, width = convolution.kernel_size
    rows = []
    for image in padded:
        for top in range(0, image.shape[1] - dy * (height - 1), down):
            for left in range(0, image.shape[2] - dx * (width - 1), right):
                window = image[:, top : top + dy * height : dy, left : left + dx * width : dx]
                rows.append(window[:, :height, :width].ravel())
    return np.array(rows)


def gram_of(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows / len(rows)


# --- Fisher information


@pytest.mark.parametrize("task_name", CLASSES)
def test_fisher_with_a_probe_for_every_class_is_the_exact_expectation(task_name: str) -> None:
    problem = tiny_problem(images=5)
    encoder, images = loaded(problem, task_name), problem.images[task_name]
    expected = naive_fisher(encoder, problem.heads[task_name], images)
    found = fisher_diagonal(encoder, problem.heads[task_name], images, batch_size=2, probes=ALL)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-9, atol=1e-14)
        assert found[name].dtype == torch.float64
        assert not found[name].requires_grad


def test_fisher_with_few_probes_is_right_on_average() -> None:
    problem = tiny_problem(images=3)
    encoder, head, images = problem.encoder, problem.heads["letters"], problem.images["letters"]
    encoder.load_state_dict(problem.finetuned["letters"])
    expected = naive_fisher(encoder, head, images)
    drawn = [fisher_diagonal(encoder, head, images, probes=2, seed=s) for s in range(150)]
    for name, values in expected.items():
        samples = np.stack([each[name].numpy() for each in drawn])
        error = samples.std(axis=0, ddof=1) / len(samples) ** 0.5
        assert (np.abs(samples.mean(axis=0) - values) <= 5.5 * error + 1e-15).all(), name
        assert error.max() > 0


def test_fisher_depends_on_the_seed_and_not_on_the_batches() -> None:
    problem = tiny_problem()
    encoder, head, images = problem.encoder, problem.heads["letters"], problem.images["letters"]
    first = fisher_diagonal(encoder, head, images, batch_size=1, probes=2, seed=3)
    second = fisher_diagonal(encoder, head, images.numpy(), batch_size=100, probes=2, seed=3)
    other = fisher_diagonal(encoder, head, images, probes=2, seed=4)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=1e-10, atol=1e-15)
    assert not torch.allclose(other["projection.weight"], first["projection.weight"])


@pytest.mark.parametrize("fastpath", [True, False])
def test_fisher_of_a_vision_transformer(fastpath: bool, set_fastpath: None) -> None:
    torch.backends.mha.set_fastpath_enabled(fastpath)
    encoder, images = vision_transformer(), pixels(3, 3, 32, 32)
    head = nn.Linear(10, 4, dtype=torch.float64)
    expected = naive_fisher(encoder, head, images)
    found = fisher_diagonal(encoder, head, images, batch_size=2, probes=4)
    for name, values in expected.items():
        scale = values.max()
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-7, atol=1e-10 * scale)


def test_fisher_of_the_efficientnet_tower() -> None:
    torch.manual_seed(1)
    encoder = image_encoder(create_clip(MINI), pixel_scaling(MINI))
    head = nn.Linear(256, 2)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    expected = naive_fisher(encoder, head, images)
    found = fisher_diagonal(encoder, head, images, probes=2)
    for name, values in expected.items():
        difference = np.abs(found[name].numpy() - values).max()
        assert difference <= 1e-3 * values.max(), name
        assert found[name].dtype == torch.float32


def test_statistics_of_low_precision_models_are_in_float32() -> None:
    problem = tiny_problem(images=2)
    encoder, head = problem.encoder.bfloat16(), problem.heads["digits"].bfloat16()
    images = problem.images["digits"].bfloat16()
    for statistic in (fisher_diagonal(encoder, head, images), gram_matrices(encoder, images)):
        assert {tensor.dtype for tensor in statistic.values()} == {torch.float32}


# --- Gram matrices


@pytest.fixture
def set_fastpath() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_gram_matrices_of_convolution_and_linear_layers(batch_size: int) -> None:
    problem = tiny_problem()
    encoder, images = loaded(problem, "signs"), problem.images["signs"]
    patches = naive_patches(images.numpy(), encoder.convolution, [[0, 0], [0, 0]])
    with torch.no_grad():
        maps = torch.tanh(encoder.convolution(images)).flatten(1)
        hidden = torch.tanh(encoder.hidden(maps))
    found = gram_matrices(encoder, images, batch_size)
    assert found.keys() == {"convolution.weight", "hidden.weight", "projection.weight"}
    for name, rows in zip(found, (patches, maps.numpy(), hidden.numpy()), strict=True):
        np.testing.assert_allclose(found[name].numpy(), gram_of(rows), rtol=1e-12, atol=1e-15)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(deadline=None, max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 1)), st.sampled_from(["same", "valid"])
    ),
)
def test_gram_matrix_of_any_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int] | str,
) -> None:
    if padding == "same":
        stride = (1, 1)  # torch refuses others
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation, dtype=torch.float64)
    images = pixels(2, 2, 7, 6)
    if padding == "same":
        extents = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = [[extent // 2, extent - extent // 2] for extent in extents]
    else:
        sides = [[0, 0]] * 2 if padding == "valid" else [[amount] * 2 for amount in padding]
    rows = naive_patches(images.numpy(), layer, sides)
    with torch.no_grad():  # the patches are those that the layer computes its output from
        flat = torch.from_numpy(rows) @ layer.weight.flatten(1).T + layer.bias
        assert torch.allclose(flat, layer(images).permute(0, 2, 3, 1).reshape(-1, 3))
    found = gram_matrices(layer, images)["weight"]
    np.testing.assert_allclose(found.numpy(), gram_of(rows), rtol=1e-12, atol=1e-15)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def naive_attention(attention: nn.MultiheadAttention, tokens: np.ndarray) -> np.ndarray:
    """[N, L, E] -> [N, L, E], before the output projection."""
    weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    query, key, value = np.split(tokens @ weight.numpy().T + bias.numpy(), 3, axis=-1)
    heads, size = [], attention.head_dim
    for start in range(0, tokens.shape[-1], size):
        q, k, v = (part[..., start : start + size] for part in (query, key, value))
        heads.append(softmax(q @ k.transpose(0, 2, 1) / size**0.5) @ v)
    return np.concatenate(heads, axis=-1)


class Attention(nn.Module):
    """One self-attention over [N, L, 12]."""

    def __init__(self, batch_first: bool, need_weights: bool, bias: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first)
        self.batch_first, self.need_weights = batch_first, need_weights
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        return self.attention(tokens, tokens, tokens, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("fastpath", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_gram_matrices_of_attention(
    batch_first: bool, need_weights: bool, fastpath: bool, set_fastpath: None
) -> None:
    torch.backends.mha.set_fastpath_enabled(fastpath)
    torch.manual_seed(0)
    encoder, tokens = Attention(batch_first, need_weights), pixels(5, 4, 12)
    nn.init.normal_(encoder.attention.in_proj_bias)
    nn.init.normal_(encoder.attention.out_proj.bias)
    attended = naive_attention(encoder.attention, tokens.numpy())
    found = gram_matrices(encoder, tokens, batch_size=2)
    assert found.keys() == {"attention.in_proj_weight", "attention.out_proj.weight"}
    for name, rows in zip(found, (tokens.numpy(), attended), strict=True):
        expected = gram_of(rows.reshape(-1, 12))
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_attention_over_other_keys_has_no_single_input() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.attention(tokens, tokens.flip(1), tokens)[0]

    found = gram_matrices(Cross(), pixels(2, 4, 12).float())
    assert found.keys() == {"attention.out_proj.weight"}


@pytest.mark.parametrize("fastpath", [True, False])
def test_gram_matrices_of_a_vision_transformer(fastpath: bool, set_fastpath: None) -> None:
    torch.backends.mha.set_fastpath_enabled(fastpath)
    encoder, images = vision_transformer(), pixels(5, 3, 32, 32)
    rows: dict[str, np.ndarray] = {}
    handles = []

    def keep(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows[name] = inputs[0].numpy()

        handles.append(module.register_forward_pre_hook(hook))

    attentions = {}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            keep(f"{name}.in_proj_weight", module)
            attentions[name] = module
        elif isinstance(module, nn.Linear) and not name.endswith("out_proj"):
            keep(f"{name}.weight", module)
    with torch.no_grad():
        output = encoder(images)
    for handle in handles:
        handle.remove()
    for name, module in attentions.items():
        rows[f"{name}.out_proj.weight"] = naive_attention(module, rows[f"{name}.in_proj_weight"])
    rows["conv1.weight"] = naive_patches(images.numpy(), encoder.conv1, [[0, 0], [0, 0]])

    found = gram_matrices(encoder, images, batch_size=2)
    weights = {n for n, p in encoder.named_parameters() if p.dim() in (2, 4)}
    assert found.keys() == rows.keys() == weights - {"proj", "positional_embedding"}
    for name, values in rows.items():
        expected = gram_of(values.reshape(-1, values.shape[-1]))
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-8, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), output)


def test_gram_matrices_of_the_efficientnet_tower() -> None:
    torch.manual_seed(1)
    encoder = image_encoder(create_clip(MINI), pixel_scaling(MINI))
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    inputs: dict[str, np.ndarray] = {}
    pointwise = [
        (name, module)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    ]
    handles = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.update({f"{name}.weight": given[0].numpy()})
        )
        for name, module in pointwise
    ]
    with torch.no_grad():
        encoder(images)
    for handle in handles:
        handle.remove()
    found = gram_matrices(encoder, images, batch_size=1)
    assert len(inputs) > 30
    for name, maps in inputs.items():
        expected = gram_of(maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1]).astype(np.float64))
        error = np.abs(found[name].numpy() - expected).max()
        assert error <= 1e-5 * expected.max(), name
    # TensorFlow's padding: all of it after the image at stride 2 on an even side
    stem = encoder.trunk.conv_stem
    maps = ((images.permute(0, 3, 1, 2).double() - 127) / 128).numpy()
    expected = gram_of(naive_patches(maps, stem, [[0, 1], [0, 1]]))
    np.testing.assert_allclose(found["trunk.conv_stem.weight"].numpy(), expected, atol=1e-5)
    assert found.keys() - inputs.keys() == {"trunk.conv_stem.weight", "head.proj.weight"}


def test_the_encoder_is_left_without_hooks_when_it_fails() -> None:
    encoder = TinyEncoder()
    with pytest.raises(InputError, match="does not take a batch of shape"):
        gram_matrices(encoder, pixels(2, 3, 5, 5))
    assert not encoder.convolution._forward_pre_hooks


@pytest.mark.parametrize("bad", [0, -1])
def test_counts_below_one_and_no_images_are_refused_together(bad: int) -> None:
    problem = tiny_problem()
    head, empty = problem.heads["digits"], torch.zeros(0, 2, 5, 5)
    with pytest.raises(InputError) as caught:
        fisher_diagonal(problem.encoder, head, empty, batch_size=bad, probes=bad)
    for part in (f"batch_size = {bad}", f"probes = {bad}", "0 images", "3 faults"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="2 faults"):
        gram_matrices(problem.encoder, empty, batch_size=bad)


# --- the rules


def statistics_of(problem: Problem, needed: str) -> Statistics:
    if needed == "fisher_diagonal":
        return {
            name: fisher_diagonal(loaded(problem, name), problem.heads[name], problem.images[name])
            for name in CLASSES
        }
    return {name: gram_matrices(loaded(problem, name), problem.images[name]) for name in CLASSES}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture(scope="module")
def fisher(problem: Problem) -> Statistics:
    return statistics_of(problem, "fisher_diagonal")


@pytest.fixture(scope="module")
def gram(problem: Problem) -> Statistics:
    return statistics_of(problem, "gram_matrices")


def naive_mean(problem: Problem, name: str) -> np.ndarray:
    return np.mean([state[name].numpy() for state in problem.finetuned.values()], axis=0)


@pytest.mark.parametrize("floor", [1e-6, 0.3])
def test_fisher_merging_is_the_mean_weighted_by_fisher_information(
    problem: Problem, fisher: Statistics, floor: float
) -> None:
    layers = [n for n, t in problem.pretrained.items() if t.is_floating_point() and n != UNCHANGED]
    merged = fisher_merging(problem.task_vectors, fisher, floor)
    assert list(merged) == list(problem.pretrained)
    norms = {}
    for task_name, state in fisher.items():
        entries = np.concatenate([state[name].numpy().ravel() for name in layers])
        norms[task_name] = np.sqrt(np.mean(entries**2))
    for name in layers:
        above, below = 0, 0
        for task_name, state in problem.finetuned.items():
            weight = np.maximum(fisher[task_name][name].numpy() / norms[task_name], floor)
            above, below = above + weight * state[name].numpy(), below + weight
        np.testing.assert_allclose(merged[name].numpy(), above / below, rtol=1e-10, atol=1e-13)
    for name in (UNCHANGED, "batches_seen"):
        assert torch.equal(merged[name], problem.pretrained[name])


def test_fisher_merging_does_not_change_with_the_scale_of_a_tasks_information(
    problem: Problem, fisher: Statistics
) -> None:
    scaled = {**fisher, "signs": {n: 1e-9 * t for n, t in fisher["signs"].items()}}
    expected = fisher_merging(problem.task_vectors, fisher)
    for name, tensor in fisher_merging(problem.task_vectors, scaled).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-12)


def test_where_no_task_has_information_fisher_merging_averages(
    problem: Problem, fisher: Statistics
) -> None:
    silent = {task: {n: torch.zeros_like(t) for n, t in s.items()} for task, s in fisher.items()}
    merged = fisher_merging(problem.task_vectors, silent)
    for name, tensor in weight_averaging(problem.task_vectors).items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-12, atol=1e-14)


def test_a_layer_that_one_task_alone_cares_about_becomes_its_own(problem: Problem) -> None:
    care = {task: {"projection.bias": torch.zeros(6), "hidden.weight": torch.ones(7, 27)}
            for task in CLASSES}  # fmt: skip
    care["letters"]["projection.bias"] = torch.ones(6)
    merged = fisher_merging(problem.task_vectors, care, floor=1e-12)
    expected = problem.finetuned["letters"]["projection.bias"]
    torch.testing.assert_close(merged["projection.bias"], expected, rtol=1e-10, atol=1e-10)
    mean = naive_mean(problem, "projection.weight")  # no task has information on it
    np.testing.assert_allclose(merged["projection.weight"].numpy(), mean, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9, 1.0])
def test_regmean_is_its_closed_form(problem: Problem, gram: Statistics, alpha: float) -> None:
    merged = regmean(problem.task_vectors, gram, alpha)
    assert list(merged) == list(problem.pretrained)
    for name, tensor in problem.pretrained.items():
        expected = naive_mean(problem, name) if tensor.is_floating_point() else tensor.numpy()
        if name in gram["digits"]:
            grams, products = [], []
            for task_name, state in problem.finetuned.items():
                full = gram[task_name][name].numpy()
                shrunk = np.where(np.eye(len(full), dtype=bool), full, alpha * full)
                grams.append(shrunk)
                products.append(shrunk @ state[name].numpy().reshape(len(tensor), -1).T)
            solution = np.linalg.inv(np.sum(grams, axis=0)) @ np.sum(products, axis=0)
            expected = solution.T.reshape(tensor.shape)
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-6, atol=1e-8)


def test_regmean_of_equal_inputs_is_the_mean_and_of_one_task_that_task(
    problem: Problem, gram: Statistics
) -> None:
    merged = regmean(problem.task_vectors, dict.fromkeys(CLASSES, gram["digits"]))
    for name, tensor in weight_averaging(problem.task_vectors).items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-9, atol=1e-12)
    alone = regmean(problem.task_vectors.select(("letters",)), gram)
    for name, tensor in problem.finetuned["letters"].items():
        torch.testing.assert_close(alone[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_regmean_leaves_the_mean_where_no_task_has_inputs(alpha: float, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.standard_normal((2, 3, 8))).to(dtype)
    vectors = TaskVectors({"w": torch.zeros(3, 8, dtype=dtype)}, ("a", "b"), {"w": weights})
    rows = generator.standard_normal((2, 2, 8))  # two rows a task: 8 inputs, rank 4 at the most
    rows[:, :, 5:] = 0  # inputs that are always zero
    grams = {
        task: {"w": torch.from_numpy(gram_of(x)).to(dtype)}
        for task, x in zip("ab", rows, strict=True)
    }
    merged = regmean(vectors, grams, alpha)["w"].double().numpy()
    mean = weights.double().mean(dim=0).numpy()
    np.testing.assert_allclose(merged[:, 5:], mean[:, 5:], rtol=1e-5, atol=1e-6)
    assert np.abs(merged).max() < 10 * np.abs(weights.double().numpy()).max()
    if alpha == 1:  # more unknowns than rows: every task's outputs can be met
        for x, weight in zip(rows, weights.double().numpy(), strict=True):
            tolerance = 0.05 if dtype == torch.float32 else 1e-6
            np.testing.assert_allclose(x @ merged.T, x @ weight.T, atol=tolerance)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), tasks=st.integers(1, 4))
def test_no_other_weight_fits_the_tasks_outputs_better_than_regmean(seed: int, tasks: int) -> None:
    generator = np.random.default_rng(seed)
    names = tuple(f"task{k}" for k in range(tasks))
    weights = generator.standard_normal((tasks, 3, 5))
    inputs = generator.standard_normal((tasks, 20, 5)) * generator.uniform(0.1, 3, (tasks, 1, 5))
    vectors = TaskVectors(
        {"w": torch.zeros(3, 5, dtype=torch.float64)}, names, {"w": torch.from_numpy(weights)}
    )
    grams = {n: {"w": torch.from_numpy(gram_of(x))} for n, x in zip(names, inputs, strict=True)}

    def misfit(candidate: np.ndarray) -> float:
        return sum(
            ((x @ (candidate - w).T) ** 2).sum() for x, w in zip(inputs, weights, strict=True)
        )

    best = regmean(vectors, grams, alpha=1.0)["w"].numpy()
    for size in (1e-3, 1.0):
        other = best + size * generator.standard_normal(best.shape)
        assert misfit(best) < misfit(other)


BOTH = pytest.mark.parametrize(
    ("rule", "needed"), [(fisher_merging, "fisher"), (regmean, "gram")], ids=["fisher", "regmean"]
)


@BOTH
@pytest.mark.parametrize("order", list(itertools.permutations(CLASSES))[1:], ids="-".join)
def test_the_order_of_the_tasks_changes_nothing(
    rule: Rule,
    needed: str,
    order: tuple[str, ...],
    problem: Problem,
    request: pytest.FixtureRequest,
) -> None:
    statistics = request.getfixturevalue(needed)
    expected = rule(problem.task_vectors, statistics)
    permuted = rule(problem.task_vectors.select(order), {name: statistics[name] for name in order})
    for name, tensor in expected.items():
        torch.testing.assert_close(permuted[name], tensor, rtol=1e-8, atol=1e-10)


@BOTH
def test_zero_task_vectors_give_the_pretrained_model(
    rule: Rule, needed: str, problem: Problem, request: pytest.FixtureRequest
) -> None:
    statistics = request.getfixturevalue(needed)
    zeros = problem.task_vectors.map_layers(lambda _, stack: torch.zeros_like(stack))
    unchanged = TaskVectors(problem.pretrained, tuple(CLASSES), {})
    for vectors in (zeros, unchanged):
        merged = rule(vectors, statistics)
        assert list(merged) == list(problem.pretrained)
        assert all(torch.equal(merged[n], tensor) for n, tensor in problem.pretrained.items())


@BOTH
@pytest.mark.parametrize("task_name", CLASSES)
def test_one_task_alone_gives_its_model(
    rule: Rule, needed: str, task_name: str, problem: Problem, request: pytest.FixtureRequest
) -> None:
    statistics = request.getfixturevalue(needed)
    alone = rule(problem.task_vectors.select((task_name,)), statistics)
    for name, tensor in problem.finetuned[task_name].items():
        torch.testing.assert_close(alone[name], tensor, rtol=1e-10, atol=1e-12)


def test_rules_keep_the_models_dtype() -> None:
    weights = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    vectors = TaskVectors({"w": torch.zeros(3, 4).bfloat16()}, ("a", "b"), {"w": weights})
    expected = weights.float().mean(dim=0)
    for merged in (
        regmean(vectors, {name: {"w": torch.eye(4)} for name in "ab"}),
        fisher_merging(vectors, {name: {"w": torch.ones(3, 4)} for name in "ab"}),
    ):
        assert merged["w"].dtype == torch.bfloat16
        torch.testing.assert_close(merged["w"].float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("rule", [fisher_merging, regmean])
def test_rules_leave_what_they_are_given_alone(
    rule: object, problem: Problem, fisher: Statistics, gram: Statistics
) -> None:
    given_statistics = fisher if rule is fisher_merging else gram
    before = {task: {n: t.clone() for n, t in s.items()} for task, s in given_statistics.items()}
    vectors = problem.task_vectors
    layers = {name: stack.clone() for name, stack in vectors.layers.items()}
    rule(vectors, given_statistics)
    assert all(torch.equal(vectors.layers[name], stack) for name, stack in layers.items())
    for task_name, state in before.items():
        assert all(torch.equal(given_statistics[task_name][n], t) for n, t in state.items())


@pytest.mark.parametrize("needed", ["fisher_diagonal", "gram_matrices"])
def test_every_fault_of_the_statistics_is_listed(
    needed: str, problem: Problem, fisher: Statistics, gram: Statistics
) -> None:
    rule, good = {"fisher_diagonal": (fisher_merging, fisher), "gram_matrices": (regmean, gram)}[
        needed
    ]
    bad = {task: dict(state) for task, state in good.items() if task != "letters"}
    bad["digits"]["projection.weight"] = torch.zeros(2, 2)
    bad["digits"]["stranger"] = torch.zeros(1)
    spoilt = bad["signs"]["hidden.weight"].clone()
    spoilt[0, :2] = torch.tensor([float("nan"), float("inf")])
    bad["signs"]["hidden.weight"] = spoilt
    del bad["signs"]["convolution.weight"]
    with pytest.raises(InputError) as caught:
        rule(problem.task_vectors, bad)
    shape = [6, 7] if needed == "fisher_diagonal" else [7, 7]
    for part in (
        f"{needed} that does not fit the task vectors: 6 faults",
        f"task letters has no statistics; compute {needed}",
        f"digits: tensor projection.weight has shape [2, 2], must have {shape}",
        "digits: tensor stranger is no tensor of the pretrained model",
        "signs: tensor stranger is missing",
        "signs: tensor hidden.weight has 2 non-finite values",
        "signs: tensor convolution.weight is missing",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("floor", [0, -1e-6, float("nan"), float("inf")])
def test_a_floor_that_is_not_above_zero_is_refused(
    floor: float, problem: Problem, fisher: Statistics
) -> None:
    with pytest.raises(InputError, match=f"floor = {floor}.*{rule_for(floor, 'above 0')}"):
        fisher_merging(problem.task_vectors, fisher, floor)


@pytest.mark.parametrize("alpha", [-0.1, 1.0001, float("nan")])
def test_alpha_outside_its_range_is_refused(
    alpha: float, problem: Problem, gram: Statistics
) -> None:
    with pytest.raises(InputError, match=f"alpha = {alpha}.*" + rule_for(alpha, r"\[0, 1\]")):
        regmean(problem.task_vectors, gram, alpha)


@pytest.mark.parametrize("rule", ["fisher_merging", "regmean"])
def test_statistics_are_checkpoints_and_the_rules_name_what_they_need(
    rule: str, problem: Problem, tmp_path: Path
) -> None:
    entry = RULES[rule]
    computed = statistics_of(problem, str(entry.needs))
    for task_name, state in computed.items():
        checkpoints.save(tmp_path / f"{task_name}.safetensors", state)
    read = {name: checkpoints.load(tmp_path / f"{name}.safetensors") for name in CLASSES}
    expected = entry(problem.task_vectors, computed)
    for name, tensor in entry(problem.task_vectors, read).items():
        assert torch.equal(tensor, expected[name])
