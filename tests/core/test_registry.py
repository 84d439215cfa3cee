"""The registry: what decorators add, and criteria against their formulas in numpy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.checkpoints import StateDict
from adamerge_core.merging.registry import (
    AFTER,
    BEFORE,
    CRITERIA,
    RULES,
    Entry,
    after,
    before,
    criterion,
    merge_rule,
)
from adamerge_core.parameters import Parameter
from adamerge_core.task_vectors import TaskVectors

REGISTRIES = {
    "rules": RULES,
    "before": BEFORE,
    "after": AFTER,
    "criteria": CRITERIA,
    "objectives": OBJECTIVES,
}
ENTRIES = [
    pytest.param(entry, id=f"{kind}-{entry.name}")
    for kind, registry in REGISTRIES.items()
    for entry in registry.values()
]


@pytest.fixture
def registries() -> Iterator[None]:
    """The registries, put back after a test that adds to them."""
    before_it = {name: dict(registry) for name, registry in REGISTRIES.items()}
    yield
    for name, registry in REGISTRIES.items():
        registry.clear()
        registry.update(before_it[name])


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_says_what_its_function_is(entry: Entry) -> None:
    assert entry.name == entry.function.__name__
    assert entry.module == entry.function.__module__
    assert entry.doc == inspect.getdoc(entry.function)
    assert entry.summary == re.split(r"\n\n", entry.doc)[0].replace("\n", " ")
    assert entry.summary.endswith((".", ":"))
    assert entry.source
    defaults = {
        name: each.default
        for name, each in inspect.signature(entry.function).parameters.items()
        if each.default is not inspect.Parameter.empty
    }
    assert {name: each.default for name, each in entry.parameters.items()} == defaults


def test_every_kind_is_registered_by_its_decorator(registries: None) -> None:
    @merge_rule(source="here", needs="fisher_diagonal")
    def first(vectors: TaskVectors, fisher: object, keep: float = 0.5) -> StateDict:
        """Merge.

        More.
        """
        return {}

    @before(source="here", start=1.0)
    def second(vectors: TaskVectors, times: int = 2) -> TaskVectors:
        """Change."""
        return vectors

    @after(source="here", needs="gram_matrices")
    def third(merged: StateDict, vectors: TaskVectors, gram: object, on: bool = True) -> StateDict:
        """Calibrate."""
        return merged

    @criterion(source="here", needs="experts", better="lower")
    def fourth(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Measure."""
        return logits[:, 0]

    entry = RULES["first"]
    assert (entry.needs, entry.parameters) == ("fisher_diagonal", {"keep": Parameter(0.5, float)})
    assert (entry.summary, entry.doc) == ("Merge.", "Merge.\n\nMore.")
    assert (BEFORE["second"].start, BEFORE["second"].needs) == (1.0, None)
    assert BEFORE["second"].parameters == {"times": Parameter(2, int)}
    assert AFTER["third"].needs == "gram_matrices"
    assert AFTER["third"].parameters == {"on": Parameter(True, bool)}
    assert (CRITERIA["fourth"].needs, CRITERIA["fourth"].better) == ("experts", "lower")
    vectors = TaskVectors({}, ("a",), {})
    merged = {"w": torch.ones(1)}
    assert AFTER["third"](merged, vectors, {}) is merged
    assert first(vectors, {}) == {}, "a decorator gives the function back"


def test_a_parameter_without_a_default_is_refused(registries: None) -> None:
    with pytest.raises(TypeError, match="third: parameters share need a default"):

        @after(source="here")
        def third(merged: StateDict, vectors: TaskVectors, share: float) -> StateDict:
            return merged


def test_a_name_stands_once_in_a_registry_but_in_several_of_them(registries: None) -> None:
    with pytest.raises(TypeError, match="ties_merging: registered twice"):

        @merge_rule(source="here")
        def ties_merging(vectors: TaskVectors) -> StateDict:
            return {}

    assert "entropy" in CRITERIA
    assert "entropy" in OBJECTIVES


def test_criteria_are_their_formulas() -> None:
    generator = np.random.default_rng(0)
    logits, experts = generator.normal(size=(2, 40, 5))
    labels = generator.integers(0, 5, size=40)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    wanted = {
        "accuracy": 100.0 * (logits.argmax(axis=1) == labels),
        "entropy": -(probabilities * np.log(probabilities)).sum(axis=1),
        "agreement": 100.0 * (logits.argmax(axis=1) == experts.argmax(axis=1)),
    }
    targets = {
        "labels": torch.from_numpy(labels),
        "experts": torch.from_numpy(experts).softmax(dim=1),
        None: None,
    }
    assert wanted.keys() == CRITERIA.keys()
    for name, entry in CRITERIA.items():
        found = entry(torch.from_numpy(logits), targets[entry.needs]).numpy()
        np.testing.assert_allclose(found, wanted[name], rtol=1e-12)
    better = {name: entry.better for name, entry in CRITERIA.items()}
    assert better == {"accuracy": "higher", "entropy": "lower", "agreement": "higher"}
