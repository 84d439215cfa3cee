"""Turns: adaptations in which a step has the images of some tasks alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import (
    Problem,
    TinyEncoder,
    naive_entropies,
    naive_vectors,
    tiny_problem,
)

from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from adamerge_core.adamerging.turns import tasks_at, turns_before
from adamerge_core.batches import batch_indices
from adamerge_core.errors import InputError

NAMES = ("digits", "letters", "signs")
TURNS = {
    "one a step": [("digits",), ("letters",), ("signs",)],
    "one after the other": [("digits",)] * 4 + [("letters",)] * 4 + [("signs",)] * 4,
    "one never": [("signs", "digits")],
    "uneven": [("letters", "digits"), ("signs",), ("digits",)],
}
CHOSEN = AdaptationSettings("layer_wise", 24, 3, learning_rate=0.03, batches_per_step=1)


def make_engine(problem: Problem) -> Engine:
    return Engine(TinyEncoder(), problem.task_vectors, problem.heads)


def naive(problem: Problem, turns: list[tuple[str, ...]], seed: int) -> list[torch.Tensor]:
    """Adam on a leaf; every task goes through its own images, a batch at each of its turns."""
    leaf = torch.full((5, 3), 0.3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([leaf], lr=CHOSEN.learning_rate)
    vectors, taken = naive_vectors(problem), dict.fromkeys(NAMES, 0)
    found = []
    for step in range(CHOSEN.steps):
        here = turns[step % len(turns)]
        images = {}
        for k, name in enumerate(NAMES):
            if name in here:
                pixels = problem.images[name]
                images[name] = pixels[batch_indices(len(pixels), 3, taken[name], (seed, k))]
                taken[name] += 1
        some = replace(problem, heads={name: problem.heads[name] for name in images})
        adam.zero_grad()
        sum(naive_entropies(some, vectors, leaf.clamp(0, 1), images).values()).backward()
        adam.step()
        found.append(leaf.detach().clone().clamp(0, 1))
    return found


@pytest.mark.parametrize("order", TURNS)
def test_turns_equal_adam_on_the_naive_formula(order: str) -> None:
    problem, turns = tiny_problem(seed=2), TURNS[order]
    steps = list(adapt(make_engine(problem), problem.images, CHOSEN, seed=3, turns=turns))
    for step, expected in zip(steps, naive(problem, turns, seed=3), strict=True):
        torch.testing.assert_close(step.coefficients, expected, rtol=0, atol=1e-9)
        assert set(step.entropy) == set(turns[(step.step - 1) % len(turns)])


def test_all_tasks_in_every_turn_is_no_turns() -> None:
    problem = tiny_problem()
    *_, plain = adapt(make_engine(problem), problem.images, CHOSEN, seed=1)
    *_, turned = adapt(make_engine(problem), problem.images, CHOSEN, seed=1, turns=[NAMES])
    assert torch.equal(plain.coefficients, turned.coefficients)


def test_no_image_of_a_task_without_a_turn_is_drawn() -> None:
    problem, turns = tiny_problem(), TURNS["one never"]
    *_, first = adapt(make_engine(problem), problem.images, CHOSEN, seed=1, turns=turns)
    other = problem.images | {"letters": 9 * problem.images["letters"]}
    *_, second = adapt(make_engine(problem), other, CHOSEN, seed=1, turns=turns)
    assert torch.equal(first.coefficients, second.coefficients)


@pytest.mark.parametrize("stop", [1, 5, 23])
def test_turns_go_on_from_a_state_and_others_are_another_run(tmp_path: Path, stop: int) -> None:
    problem, state, turns = tiny_problem(), tmp_path / "state.safetensors", TURNS["uneven"]
    *_, whole = adapt(make_engine(problem), problem.images, CHOSEN, seed=2, turns=turns)
    for step in adapt(make_engine(problem), problem.images, CHOSEN, 2, state, 1, turns=turns):
        if step.step > stop:
            break
    *_, last = adapt(make_engine(problem), problem.images, CHOSEN, 2, state, 1, turns=turns)
    assert torch.equal(last.coefficients, whole.coefficients)
    with pytest.raises(InputError, match="turns"):
        next(adapt(make_engine(problem), problem.images, CHOSEN, 2, state, 1))


def test_faults_of_turns_are_listed_at_once() -> None:
    problem = tiny_problem()
    turns = [("digits",), (), ("cars", "signs"), ("signs", "signs"), "digits"]
    with pytest.raises(InputError) as caught:
        next(adapt(make_engine(problem), problem.images, CHOSEN, 0, turns=turns))
    for number, text in ((1, "must have tasks"), (2, "'cars' must be"), (3, "each once"), (4, "")):
        assert any(
            f"turns[{number}]" in line and text in line for line in str(caught.value).splitlines()
        )
    assert "turns[0]" not in str(caught.value)
    with pytest.raises(InputError, match=r"turns = \[\]: give for each step"):
        next(adapt(make_engine(problem), problem.images, CHOSEN, 0, turns=[]))


def test_turns_are_counted_from_any_step_on() -> None:
    random = np.random.default_rng(0)
    for turns in TURNS.values():
        for name in NAMES:
            step = int(random.integers(0, 40))
            before = [name in tasks_at(each, turns, NAMES) for each in range(step)]
            assert turns_before(step, turns, name) == sum(before)
    assert turns_before(7, None, "digits") == 7
