"""Choosing a parameter's value by a criterion, and methods put together, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from small_models import CLASSES, Problem, naive_logits, tiny_problem
from torch import Tensor

from adamerge_core.adamerging import AdaptationSettings, Engine, adapt, expert_targets
from adamerge_core.checkpoints import StateDict
from adamerge_core.merging.registry import AFTER, BEFORE, CRITERIA, RULES, after
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Choice, Judge
from adamerge_core.vision.images import LabeledImages
from tasks.running.work import PlainReporter
from tasks.shared.adaptation import Adaptation
from tasks.shared.choice import choose
from tasks.shared.methods import make_model
from tasks.suite.method_entries import Choose
from tasks.suite.methods import AdaptMethod, RuleMethod, parse_as

COMPUTE = {"micro_batch": 64, "precision": "float32"}
STEPS = {"steps": 3, "images_per_task": 4, "batches_per_step": 1, "learning_rate": 0.05}


@pytest.fixture
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture
def data(problem: Problem) -> dict[str, LabeledImages]:
    generator = np.random.default_rng(0)
    return {
        name: LabeledImages(
            problem.images[name].numpy(),
            generator.integers(0, classes, size=len(problem.images[name])),
        )
        for name, classes in CLASSES.items()
    }


@pytest.fixture
def doubling() -> Iterator[None]:
    """Something to stand after: it doubles the convolution's bias and notes its inputs."""

    @after(source="here")
    def double_bias(merged: StateDict, vectors: TaskVectors, times: float = 2.0) -> StateDict:
        """Multiply."""
        assert torch.equal(vectors.layers["convolution.bias"], PLAIN["convolution.bias"])
        return {**merged, "convolution.bias": times * merged["convolution.bias"]}

    yield
    del AFTER["double_bias"]


PLAIN = dict(tiny_problem().task_vectors.layers)


def rule_method(**entry: Any) -> RuleMethod:
    return parse_as(RuleMethod, "m", {"m": entry})


def adapt_method(**entry: Any) -> AdaptMethod:
    return parse_as(AdaptMethod, "m", {"m": entry})


def equal(found: StateDict, wanted: StateDict) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


class Made:
    def __init__(self, value: float, model: StateDict) -> None:
        self.value, self.model = value, model


# --- criteria -------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_is_its_mean_over_images_then_over_tasks(
    criterion: str, problem: Problem, data: dict[str, LabeledImages]
) -> None:
    vectors = problem.task_vectors
    judge = Judge.prepare(criterion, problem.encoder, vectors, problem.heads, data)
    model = RULES["task_arithmetic"](vectors, scaling=0.5)
    found = judge.measure(model)
    experts = expert_targets(problem.encoder, vectors, problem.heads, problem.images)
    all_logits = naive_logits(problem, model, problem.images)
    wanted = {}
    for name, part in data.items():
        logits = all_logits[name]
        targets: dict[str | None, Tensor | None] = {
            "labels": torch.from_numpy(part.labels),
            "experts": experts[name],
            None: None,
        }
        values = CRITERIA[criterion](logits, targets[CRITERIA[criterion].needs])
        wanted[name] = float(values.mean())
    wanted["average"] = sum(wanted.values()) / len(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
def test_labels_are_not_read_where_a_criterion_needs_none(criterion: str, problem: Problem) -> None:
    unlabeled = {
        name: LabeledImages(images.numpy(), np.full(len(images), 999))
        for name, images in problem.images.items()
    }
    other = {
        name: LabeledImages(images.numpy(), np.zeros(len(images), dtype=int))
        for name, images in problem.images.items()
    }
    vectors = problem.task_vectors
    measured = [
        Judge.prepare(criterion, problem.encoder, vectors, problem.heads, each).measure(
            problem.pretrained
        )
        for each in (unlabeled, other)
    ]
    assert measured[0] == measured[1]


def test_agreement_of_the_experts_with_themselves_is_whole(problem: Problem) -> None:
    data = {"letters": LabeledImages(problem.images["letters"].numpy(), np.zeros(12, dtype=int))}
    vectors = problem.task_vectors.select(("letters",))
    judge = Judge.prepare("agreement", problem.encoder, vectors, problem.heads, data)
    assert judge.measure(problem.finetuned["letters"]) == {"letters": 100.0, "average": 100.0}


# --- choosing -------------------------------------------------------------------------------------


def tried(values: dict[float, float], criterion: str) -> Choice[Made]:
    """Choose among values of which each has a measured average."""

    class Fixed(Judge):
        def measure(self, model: StateDict) -> dict[str, float]:
            return {"digits": float(model["value"]), "average": float(model["value"])}

    judge = Fixed(CRITERIA[criterion], torch.nn.Identity(), {}, {}, None)
    options = Choose(parameter="scaling", values=tuple(values), by=criterion)

    def make(number: int, value: float) -> Made:
        assert list(values)[number - 1] == value
        return Made(value, {"value": torch.tensor(values[value], dtype=torch.float64)})

    return choose(options, judge, make, PlainReporter())


def test_the_best_average_is_kept_and_the_first_of_equals() -> None:
    measured = {0.1: 3.0, 0.2: 7.0, 0.3: 1.0, 0.4: 7.0, 0.5: 1.0}
    assert tried(measured, "accuracy").best.value == 0.2
    assert tried(measured, "entropy").best.value == 0.3
    assert tried({0.1: -1.0}, "accuracy").best.value == 0.1


def test_every_value_tried_is_a_row() -> None:
    rows = tried({0.1: 3.0, 0.2: 7.0}, "agreement").rows
    assert rows == [
        {"scaling": 0.1, "criterion": "agreement", "digits": 3.0, "average": 3.0},
        {"scaling": 0.2, "criterion": "agreement", "digits": 7.0, "average": 7.0},
    ]


# --- methods put together -------------------------------------------------------------------------


def test_before_rule_and_after_follow_one_another(problem: Problem, doubling: None) -> None:
    vectors = problem.task_vectors
    method = rule_method(
        rule="task_arithmetic",
        scaling=0.5,
        before={"name": "trim_and_elect", "keep": 0.3},
        after={"name": "double_bias", "times": 3},
    )
    wanted = RULES["task_arithmetic"](BEFORE["trim_and_elect"](vectors, keep=0.3), scaling=0.5)
    wanted["convolution.bias"] = 3 * wanted["convolution.bias"]
    equal(make_model(method, vectors, {}), wanted)


def test_a_rule_gets_the_statistics_that_it_needs(problem: Problem) -> None:
    vectors = problem.task_vectors
    fisher = {
        name: {layer: torch.rand_like(stack[0]) for layer, stack in vectors.layers.items()}
        for name in vectors.task_names
    }
    found = make_model(rule_method(rule="fisher_merging"), vectors, {"fisher_diagonal": fisher})
    equal(found, RULES["fisher_merging"](vectors, fisher))


def test_an_adaptation_is_the_cores(
    problem: Problem, data: dict[str, LabeledImages], doubling: None
) -> None:
    vectors = problem.task_vectors
    method = adapt_method(
        adapt="layer_wise",
        before={"name": "trim_and_elect", "keep": 0.5},
        after="double_bias",
        objective="self_labelling",
        **STEPS,
    )
    adaptation = Adaptation.prepare(method, problem.encoder, vectors, problem.heads, data, COMPUTE)
    rows = dict.fromkeys(data, slice(0, 8))
    *_, last = adaptation.steps(3, rows=rows)

    trimmed = BEFORE["trim_and_elect"](vectors, keep=0.5)
    images = {name: each[:8] for name, each in problem.images.items()}
    targets = expert_targets(problem.encoder, vectors, problem.heads, images)
    engine = Engine(problem.encoder, trimmed, problem.heads, 64, "float32")
    settings = AdaptationSettings(objective="self_labelling", **STEPS)
    *_, wanted = adapt(engine, images, settings, 3, targets=targets)
    assert torch.equal(last.coefficients, wanted.coefficients)
    merged = trimmed.merge(wanted.coefficients)
    merged["convolution.bias"] = 2 * merged["convolution.bias"]
    equal(adaptation.model(last.coefficients, {}), merged)


def test_a_supervised_objective_gets_the_labels(
    problem: Problem, data: dict[str, LabeledImages]
) -> None:
    method = adapt_method(adapt="task_wise", objective="cross_entropy", **STEPS)
    adaptation = Adaptation.prepare(
        method, problem.encoder, problem.task_vectors, problem.heads, data, COMPUTE
    )
    assert adaptation.targets is not None
    assert all(np.array_equal(adaptation.targets[n], part.labels) for n, part in data.items())


def test_the_model_of_masks_is_no_view_of_the_encoder(
    problem: Problem, data: dict[str, LabeledImages]
) -> None:
    method = adapt_method(adapt="singular_components", rank_share=0.5, **STEPS)
    adaptation = Adaptation.prepare(
        method, problem.encoder, problem.task_vectors, problem.heads, data, COMPUTE
    )
    model = adaptation.model(adaptation.start(), {})
    kept = {name: tensor.clone() for name, tensor in model.items()}
    problem.encoder.load_state_dict(problem.pretrained)
    equal(model, kept)
    coefficients = adaptation.coefficients(adaptation.start())
    assert coefficients.shape == (5, 3)
    assert adaptation.engine.parameterisation.description["rank_share"] == 0.5
