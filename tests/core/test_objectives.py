"""What adaptation minimises, against the formulas written out with numpy."""

from __future__ import annotations

from dataclasses import replace

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
    naive_logits,
    naive_merge,
    naive_vectors,
    tiny_problem,
)
from torch import Tensor

from adamerge_core.adamerging import OBJECTIVES, AdaptationSettings, Engine, adapt, expert_targets
from adamerge_core.adamerging import objective as objectives
from adamerge_core.errors import InputError

LAYERS = 5
TARGETS = [
    pytest.param("entropy", "none", id="entropy"),
    pytest.param("cross_entropy", "labels", id="cross_entropy"),
    pytest.param("cross_entropy", "experts", id="soft_cross_entropy"),
    pytest.param("self_labelling", "labels", id="self_labelling_hard"),
    pytest.param("self_labelling", "experts", id="self_labelling"),
]


def numpy_softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def numpy_loss(name: str, logits: np.ndarray, target: np.ndarray | int | None) -> float:
    """The loss of one image."""
    p = numpy_softmax(logits)
    if name == "entropy":
        return float(-sum(each * np.log(each) for each in p))
    if name == "cross_entropy":
        if np.ndim(target):
            return float(-sum(t * np.log(each) for t, each in zip(target, p, strict=True)))
        return float(-np.log(p[target]))
    label = int(np.argmax(target)) if np.ndim(target) else int(target)
    confidence = target[label] if np.ndim(target) else 1.0
    if np.argmax(p) != label and p.max() > confidence:
        return 0.0
    return float(-np.log(p[label]))


def targets_of(problem: Problem, kind: str, seed: int = 5) -> dict[str, Tensor] | None:
    """Random labels, or experts whose confidence is sometimes below the merged model's."""
    if kind == "none":
        return None
    generator = torch.Generator().manual_seed(seed)
    if kind == "labels":
        return {
            name: torch.randint(CLASSES[name], (len(pixels),), generator=generator)
            for name, pixels in problem.images.items()
        }
    return {
        name: torch.randn(len(pixels), CLASSES[name], generator=generator, dtype=torch.float64)
        .mul(2)
        .softmax(dim=1)
        for name, pixels in problem.images.items()
    }


def naive_losses(
    problem: Problem,
    coefficients: Tensor,
    objective: str,
    targets: dict[str, Tensor] | None,
    rows: dict[str, np.ndarray],
) -> dict[str, Tensor]:
    """Image by image, differentiable; which images count is decided by numpy."""
    state = naive_merge(problem.pretrained, naive_vectors(problem), coefficients)
    images = {name: pixels[rows[name]] for name, pixels in problem.images.items()}
    losses = {}
    for name, logits in naive_logits(problem, state, images).items():
        terms = []
        for index, row in enumerate(rows[name]):
            log_p = logits[index] - logits[index].exp().sum().log()
            if objective == "entropy":
                terms.append(-(log_p.exp() * log_p).sum())
                continue
            target = targets[name][row].numpy()
            if objective == "cross_entropy" and target.ndim:
                terms.append(-(torch.as_tensor(target) * log_p).sum())
                continue
            label = int(target.argmax()) if target.ndim else int(target)
            dropped = numpy_loss(objective, logits[index].detach().numpy(), target) == 0
            terms.append(-log_p[label] * (0.0 if dropped else 1.0))
        losses[name] = sum(terms) / len(terms)
    return losses


@given(
    logits=st.lists(st.floats(-20, 20), min_size=2, max_size=6),
    weights=st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
    name=st.sampled_from(sorted(OBJECTIVES)),
    hard=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_an_objective_equals_its_formula(
    logits: list[float], weights: list[float], name: str, hard: bool
) -> None:
    probabilities = np.array(weights[: len(logits)]) / sum(weights[: len(logits)])
    target = int(probabilities.argmax()) if hard else probabilities
    given_targets = None if OBJECTIVES[name].needs is None else torch.as_tensor(np.array([target]))
    loss = OBJECTIVES[name](torch.tensor([logits], dtype=torch.float64), given_targets)
    assert loss.shape == (1,)
    expected = numpy_loss(name, np.array(logits), target)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_self_labelling_drops_an_image_only_where_the_merged_model_is_surer() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.8]], dtype=torch.float64)).repeat(4, 1)
    experts = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.8, 0.2]], dtype=torch.float64)
    losses = OBJECTIVES["self_labelling"](logits, experts)
    expected = [0, -np.log(0.2), -np.log(0.8), -np.log(0.2)]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)


def test_every_objective_says_what_it_is_and_needs() -> None:
    assert {name: each.needs for name, each in OBJECTIVES.items()} == {
        "entropy": None,
        "cross_entropy": "labels",
        "self_labelling": "experts",
    }
    for name, each in OBJECTIVES.items():
        assert each.name == name
        assert each.summary.endswith(".") or ";" in each.summary
        assert each.source.startswith("arXiv ")
    with pytest.raises(TypeError, match="takes targets"):
        OBJECTIVES["cross_entropy"](torch.zeros(1, 2), None)


def test_an_objective_cannot_take_another_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubt(logits: Tensor, targets: Tensor | None) -> Tensor:
        """One minus the probability of the likeliest class."""
        return 1 - logits.softmax(dim=-1).amax(dim=-1)

    monkeypatch.setattr(objectives, "OBJECTIVES", dict(OBJECTIVES))
    register = objectives.objective(source="a test")
    assert register(doubt) is doubt
    first = objectives.OBJECTIVES["doubt"]
    with pytest.raises(TypeError, match="doubt: registered twice; give the function another name"):
        register(doubt)
    assert objectives.OBJECTIVES["doubt"] is first


@pytest.mark.parametrize(("objective", "kind"), TARGETS)
@pytest.mark.parametrize("micro_batch", [None, 5])
@pytest.mark.parametrize("shape", [(3,), (LAYERS, 3)])
def test_the_gradient_equals_differentiating_through_the_merge(
    objective: str, kind: str, micro_batch: int | None, shape: tuple[int, ...]
) -> None:
    problem = tiny_problem(seed=1)
    generator = torch.Generator().manual_seed(1)
    coefficients = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
    targets = targets_of(problem, kind)
    rows = {name: np.arange(len(pixels)) for name, pixels in problem.images.items()}
    expected = naive_losses(problem, coefficients, objective, targets, rows)
    (expected_gradient,) = torch.autograd.grad(sum(expected.values()), coefficients)
    engine = Engine(TinyEncoder(), problem.task_vectors, problem.heads, micro_batch)
    loss, entropy, gradient = engine.loss_and_gradient(
        coefficients.detach(), problem.images, targets, objective
    )
    entropies = naive_losses(problem, coefficients, "entropy", None, rows)
    for name in CLASSES:
        assert loss[name] == pytest.approx(expected[name].item(), rel=1e-11)
        assert entropy[name] == pytest.approx(entropies[name].item(), rel=1e-11)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("objective", "kind"), TARGETS)
def test_fifty_steps_equal_adam_on_the_naive_formula(objective: str, kind: str) -> None:
    problem = tiny_problem(seed=2)
    chosen = AdaptationSettings("layer_wise", 50, 2, 0.02, objective=objective)
    targets = targets_of(problem, kind)
    rows = {name: np.arange(len(pixels)) for name, pixels in problem.images.items()}
    losses, coefficients = naive_adaptation(
        lambda leaf, drawn: naive_losses(problem, leaf, objective, targets, drawn),
        rows,
        torch.full((LAYERS, 3), 0.3, dtype=torch.float64),
        chosen,
        seed=4,
    )
    engine = Engine(TinyEncoder(), problem.task_vectors, problem.heads)
    steps = list(adapt(engine, problem.images, chosen, seed=4, targets=targets))
    for step, loss, expected in zip(steps, losses, coefficients, strict=True):
        assert step.loss == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(step.coefficients, expected, rtol=0, atol=1e-9)
    assert (steps[-1].coefficients - 0.3).abs().max() > 0.1


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_expert_targets_are_the_fine_tuned_models_predictions(batch_size: int) -> None:
    problem = tiny_problem(seed=3)
    seen: list[int] = []

    class Counting(TinyEncoder):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    encoder = Counting().train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    arrays = {name: pixels.numpy() for name, pixels in problem.images.items()}
    targets = expert_targets(encoder, problem.task_vectors, problem.heads, arrays, batch_size)
    assert max(seen) <= batch_size
    assert encoder.training
    assert all(torch.equal(t, before[n]) for n, t in encoder.state_dict().items())
    for name, state in problem.finetuned.items():
        logits = naive_logits(problem, state, problem.images)[name].detach().numpy()
        expected = np.stack([numpy_softmax(row) for row in logits])
        assert targets[name].dtype == torch.float64
        np.testing.assert_allclose(targets[name].numpy(), expected, rtol=1e-9)


def test_expert_targets_put_the_encoder_back_after_a_failure() -> None:
    problem = tiny_problem()
    encoder = TinyEncoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    images = {**problem.images, "letters": torch.zeros(2, 1, 5, 5, dtype=torch.float64)}
    with pytest.raises(InputError, match="channels"):
        expert_targets(encoder, problem.task_vectors, problem.heads, images)
    assert all(torch.equal(t, before[n]) for n, t in encoder.state_dict().items())


def test_all_faults_of_expert_targets_are_listed() -> None:
    problem = tiny_problem()
    encoder = TinyEncoder()
    encoder.hidden = torch.nn.Linear(27, 8)
    del encoder.projection
    heads = {name: problem.heads[name] for name in ("digits", "letters")}
    images = {"digits": problem.images["digits"], "letters": problem.images["letters"][:0]}
    with pytest.raises(InputError) as caught:
        expert_targets(encoder, problem.task_vectors, heads, images, batch_size=0)
    message = str(caught.value)
    for part in (
        "task signs has no head",
        "task signs has no images",
        "images of task letters: the value holds 0 images",
        "batch_size = 0: must be at least 1",
        "the encoder has no tensor projection.weight",
        "tensor hidden.weight is [8, 27] in the encoder, [7, 27] in the pretrained model",
    ):
        assert part in message
    assert "digits" not in message


def test_expert_targets_refuse_a_pretrained_model_that_is_the_encoder_s_own() -> None:
    """They would add one task vector after the other to it."""
    problem = tiny_problem()
    problem.encoder.load_state_dict(problem.pretrained)
    own = replace(problem.task_vectors, pretrained=problem.encoder.state_dict())
    with pytest.raises(InputError, match="clone the pretrained state dict"):
        expert_targets(problem.encoder, own, problem.heads, problem.images)


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        ("entropy", lambda t: t, "objective entropy takes no targets; give none"),
        ("cross_entropy", lambda t: None, "objective cross_entropy needs targets; give the true"),
        ("self_labelling", lambda t: None, "needs targets; give expert_targets"),
        ("cross_entropy", lambda t: {"digits": t["digits"]}, "task letters has no targets"),
        ("cross_entropy", lambda t: {**t, "digits": t["digits"][1:]}, "11 images need [11]"),
        ("cross_entropy", lambda t: {**t, "signs": t["signs"] + 1}, "labels in [1, 2]: the head"),
        ("cross_entropy", lambda t: {**t, "signs": t["signs"] - 1}, "labels in [-1, 0]: the head"),
        ("self_labelling", lambda t: {**t, "signs": torch.ones(13, 3)}, "need [13, 2]"),
        ("self_labelling", lambda t: {**t, "signs": torch.ones(13, 2)}, "sum to 1"),
        ("self_labelling", lambda t: {**t, "signs": torch.full((13, 2), np.nan)}, "sum to 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(objective: str, change, message: str) -> None:
    problem = tiny_problem()
    engine = Engine(TinyEncoder(), problem.task_vectors, problem.heads)
    chosen = AdaptationSettings(steps=1, objective=objective)
    targets = change(targets_of(problem, "labels"))
    with pytest.raises(InputError) as caught:
        next(adapt(engine, problem.images, chosen, 0, targets=targets))
    assert message in str(caught.value)


def test_targets_may_be_read_only_arrays() -> None:
    problem = tiny_problem()
    engine = Engine(TinyEncoder(), problem.task_vectors, problem.heads)
    chosen = AdaptationSettings(steps=2, objective="cross_entropy")
    tensors = targets_of(problem, "labels")
    arrays = {name: labels.numpy().astype(np.uint8) for name, labels in tensors.items()}
    for array in arrays.values():
        array.flags.writeable = False
    results = [
        list(adapt(engine, problem.images, chosen, 0, targets=targets))[-1].coefficients
        for targets in (tensors, arrays)
    ]
    assert torch.equal(*results)
