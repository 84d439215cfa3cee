"""Values by name against what a function or a settings class takes."""

from dataclasses import dataclass

import pytest

from adamerge_core import parameters


def rule(vectors: object, scaling: float = 0.3, seed: int = 0, share: float | None = None) -> None:
    """A function as a registry holds it."""


@dataclass(frozen=True)
class Settings:
    path: str
    templates: tuple[str, ...]
    shuffle: bool = True


RULE, SETTINGS = parameters.of_function(rule, positional=1), parameters.of_dataclass(Settings)


def test_what_is_taken_is_listed_with_defaults() -> None:
    assert {name: each.default for name, each in RULE.items()} == {
        "scaling": 0.3,
        "seed": 0,
        "share": None,
    }
    assert list(SETTINGS) == ["path", "templates", "shuffle"]
    assert SETTINGS["path"].default is parameters.REQUIRED


@pytest.mark.parametrize(
    "values",
    [{}, {"scaling": 1}, {"scaling": 0.5, "seed": 3, "share": 0.1}, {"share": None}],
)
def test_values_that_fit_have_no_fault(values: dict[str, object]) -> None:
    assert parameters.faults(RULE, values) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scaling", True, "scaling = True: must be a finite number"),
        ("scaling", float("nan"), "scaling = nan: must be a finite number"),
        ("scaling", float("inf"), "scaling = inf: must be a finite number"),
        ("scaling", "1e-3", "(YAML reads 1e-3 as text: write 0.001)"),
        ("scaling", "much", "scaling = 'much': must be a finite number"),
        ("scaling", 1e39, "scaling = 1e+39: must be a finite number, at most 3.4e+38"),
        ("scaling", -1e39, "at most 3.4e+38"),
        ("scaling", 10**400, "at most 3.4e+38"),
        ("scaling", 10**30, "(a whole number has at most 64 bits: write 1e+30)"),
        ("share", 1e39, "share = 1e+39: must be a finite number or null, at most 3.4e+38"),
        ("seed", 1.5, "seed = 1.5: must be a whole number"),
        ("seed", False, "seed = False: must be a whole number"),
        ("share", [], "share = []: must be a finite number or null"),
        ("scalling", 1.0, "known are scaling, seed, share; do you mean scaling?"),
    ],
)
def test_a_fault_has_value_rule_and_fix(name: str, value: object, said: str) -> None:
    (fault,) = parameters.faults(RULE, {name: value}, parameters.REALS)
    assert said in fault


def test_all_faults_are_listed() -> None:
    found = parameters.faults(SETTINGS, {"templates": ["a", 1], "shuffle": "yes", "more": 1})
    assert found == [
        "more: is no parameter; known are path, templates, shuffle",
        "path: is missing; it must be text",
        "templates = ['a', 1]: must be a list, each text",
        "shuffle = 'yes': must be true or false",
    ]
