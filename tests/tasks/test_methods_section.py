"""A suite's methods: what entries mean, and every fault at once where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml

from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import AFTER, BEFORE, RULES, after
from adamerge_core.task_vectors import TaskVectors
from tasks.suite.methods import (
    RESERVED,
    AdaptMethod,
    RuleMethod,
    methods_faults,
    parse_as,
    parse_method,
    parse_methods,
)


def entries(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))


def faults(text: str, tasks: int = 8) -> list[str]:
    """What is wrong with one entry `m`."""
    lines = methods_faults({"m": yaml.safe_load(text)}, "methods", tasks)
    assert all(line.startswith("methods.m") for line in lines)
    return [line.removeprefix("methods.m").removeprefix(".") for line in lines]


@pytest.fixture
def calibration() -> Iterator[None]:
    """Something to stand after."""

    @after(source="here", needs="fisher_diagonal")
    def calibrate(
        merged: StateDict, vectors: TaskVectors, fisher: object, share: float = 0.5
    ) -> StateDict:
        """Calibrate."""
        raise InputError("a model of tests has no layer to calibrate")

    yield
    del AFTER["calibrate"]


def test_entries_keep_what_they_say_and_no_defaults() -> None:
    methods = parse_methods(
        entries("""
        plain: {rule: ties_merging, keep: 0.1}
        best: {rule: ties_merging, choose: {scaling: [0.1, 1], by: entropy}}
        learned: {adapt: layer_wise, preset: fast, before: trim_and_elect, steps: 7}
        """)
    )
    plain, best, learned = methods.values()
    assert isinstance(plain, RuleMethod)
    assert (plain.rule, plain.parameters, plain.before) == ("ties_merging", {"keep": 0.1}, None)
    assert best.choose is not None
    assert (best.choose.parameter, best.choose.values) == ("scaling", (0.1, 1))
    assert isinstance(learned, AdaptMethod)
    assert learned.parameters == {"steps": 7}
    assert learned.before is not None
    assert (learned.before.name, learned.before.parameters) == ("trim_and_elect", {})


def test_a_rule_may_stand_twice_under_free_names() -> None:
    text = "{a: {rule: ties_merging, keep: 0.1}, b: {rule: ties_merging, keep: 0.3}}"
    a, b = parse_methods(entries(text)).values()
    assert (a.parameters, b.parameters) == ({"keep": 0.1}, {"keep": 0.3})


def test_settings_are_the_presets_with_what_the_entry_says() -> None:
    def settings(text: str) -> AdaptationSettings:
        method = parse_method(yaml.safe_load(text))
        assert isinstance(method, AdaptMethod)
        return method.settings

    assert settings("{adapt: layer_wise}") == AdaptationSettings()
    assert settings("{adapt: task_wise}") == AdaptationSettings("task_wise")
    assert settings("{adapt: layer_wise, preset: fast}") == PRESETS["fast"]
    assert settings("{adapt: layer_wise, preset: fast, steps: 9}").steps == 9
    assert settings("{adapt: singular_components, preset: adarank}") == PRESETS["adarank"]
    assert settings("{adapt: singular_components, rank_share: 0.5}").clamp == "none"


DATA = {
    "{rule: weight_averaging}": "none",
    "{rule: regmean}": "unlabeled images",
    "{rule: ties_merging, choose: {keep: [0.1, 0.2], by: entropy}}": "unlabeled images",
    "{rule: ties_merging, choose: {keep: [0.1, 0.2], by: agreement}}": "unlabeled images",
    "{rule: regmean, choose: {alpha: [0.1, 0.2], by: accuracy}}": "labels of validation images",
    "{adapt: task_wise}": "unlabeled images",
    "{adapt: task_wise, preset: fast}": "unlabeled images",
    "{adapt: task_wise, choose: {steps: [1, 2], by: accuracy}}": "labels of validation images",
    "{adapt: task_wise, objective: cross_entropy}": "labels of test images",
    "{adapt: task_wise, choose: {objective: [entropy, cross_entropy], by: entropy}}": (
        "labels of test images"
    ),
}


@pytest.mark.parametrize("text", DATA)
def test_a_method_tells_the_data_that_it_used(text: str) -> None:
    method = parse_method(yaml.safe_load(text))
    assert method.data == DATA[text]
    assert method.supervised == (DATA[text] == "labels of test images")
    assert method.adapts == ("adapt" in text)


def test_a_method_tells_its_parts_their_modules_and_what_they_need(calibration: None) -> None:
    method = parse_method(
        yaml.safe_load(
            """
        rule: regmean
        before: {name: tsv_decorrelate}
        after: {name: calibrate, share: 0.4}
        choose: {after.share: [0.2], by: agreement}
        """.replace(", share: 0.4", "")
        )
    )
    assert method.needs == ("gram_matrices", "fisher_diagonal")
    assert method.modules == (
        "adamerge_core.merging.regmean",
        "adamerge_core.merging.tsv",
        __name__,
        "adamerge_core.merging.criteria",
    )
    parts = method.parts
    assert (parts.rule, parts.adapt, parts.objective) == ("regmean", None, None)
    assert (parts.before, parts.after, parts.choose) == (
        "tsv_decorrelate",
        "calibrate",
        "agreement",
    )
    learned = parse_method({"adapt": "task_wise", "preset": "fast"}).parts
    assert (learned.adapt, learned.objective) == ("task_wise", "self_labelling")


def test_a_value_takes_the_place_of_choose() -> None:
    def tried(text: str, value: Any) -> Any:
        return parse_method(yaml.safe_load(text)).with_value(value)

    own = tried("{rule: ties_merging, keep: 0.1, choose: {scaling: [1, 2], by: entropy}}", 2)
    assert own == parse_method({"rule": "ties_merging", "keep": 0.1, "scaling": 2})
    part = tried(
        "{rule: iso_c, before: trim_and_elect, choose: {before.keep: [0.5], by: entropy}}", 0.5
    )
    over = {"name": "trim_and_elect", "keep": 0.5}
    assert part == parse_method({"rule": "iso_c", "before": over})
    learned = tried("{adapt: task_wise, choose: {start: [0.1], by: entropy}}", 0.1)
    assert learned.settings.start == 0.1


def test_of_what_stands_after_names_and_types_alone_are_checked(calibration: None) -> None:
    assert faults("{rule: iso_c, after: {name: calibrate, share: 2}}") == []
    (line,) = faults("{rule: iso_c, after: {name: calibrate, share: x}}")
    assert line == "after.share = 'x': must be a finite number"


# --- faults ---------------------------------------------------------------------------------------

ONE_FAULT = {
    "3": (" = 3", "must be a mapping"),
    "{scaling: 0.3}": (":", "neither `rule` nor `adapt`"),
    "{rule: iso_c, adapt: layer_wise}": (":", "both `rule` and `adapt`"),
    "{rule: tis_merging}": ("rule = 'tis_merging'", "ties_merging"),
    "{rule: [iso_c]}": ("rule = ['iso_c']", "string"),
    "{adapt: layer}": ("adapt = 'layer'", "layer_wise"),
    "{adapt: layer_wise, preset: fst}": ("preset = 'fst'", "fast"),
    "{rule: ties_merging, keep: 2}": ("keep = 2", "(0, 1]"),
    "{rule: ties_merging, kep: 0.2}": ("kep", "do you mean keep?"),
    "{rule: ties_merging, keep: 2e-1}": ("keep = '2e-1'", "write 0.2"),
    "{rule: wudi, steps: 1.5}": ("steps = 1.5", "whole number"),
    "{rule: consensus, min_tasks: 9}": ("min_tasks = 9", "8 tasks"),
    "{rule: iso_c, scaling: true}": ("scaling = True", "finite number"),
    "{adapt: layer_wise, granularity: task_wise}": ("granularity", "no parameter"),
    "{adapt: layer_wise, rank_share: 0.5}": ("rank_share", "no parameter"),
    "{adapt: layer_wise, objective: doubt}": ("objective = 'doubt'", "entropy"),
    "{adapt: singular_components, clamp: projected}": ("clamp = 'projected'", "none"),
    "{adapt: singular_components, rank_share: 2}": ("rank_share = 2", "[0, 1]"),
    "{rule: iso_c, before: odd}": ("before = 'odd'", "tsv_decorrelate"),
    "{rule: iso_c, before: [1]}": ("before = [1]", "{name: N"),
    "{rule: iso_c, before: {name: trim_and_elect, keep: 20}}": ("before.keep = 20", "(0, 1]"),
    "{rule: iso_c, after: odd}": ("after = 'odd'", "there are none"),
    "{rule: iso_c, choose: 3}": ("choose = 3", "by: accuracy"),
    "{rule: iso_c, choose: {scaling: 3, by: entropy}}": ("choose.scaling = 3", "list"),
    "{rule: iso_c, choose: {scaling: [1], by: odd}}": ("choose.by = 'odd'", "agreement"),
    "{rule: iso_c, choose: {scalings: [1], by: entropy}}": ("choose.scalings", "scaling?"),
    "{rule: iso_c, scaling: 1, choose: {scaling: [1], by: entropy}}": (
        "choose.scaling",
        "remove one of the two",
    ),
    "{rule: ties_merging, choose: {keep: [0.5, 2], by: entropy}}": ("choose.keep = 2", "(0, 1]"),
    "{rule: iso_c, choose: {before.keep: [0.5], by: entropy}}": ("choose.before.keep", "'before'"),
    "{rule: iso_c, before: trim_and_elect, choose: {before.keep: [0], by: entropy}}": (
        "choose.before.keep = 0",
        "(0, 1]",
    ),
    "{adapt: layer_wise, choose: {start: [0.1, 2], by: entropy}}": ("choose.start = 2", "[0, 1]"),
}


@pytest.mark.parametrize("text", ONE_FAULT)
def test_a_fault_gives_the_key_the_value_and_the_rule(text: str) -> None:
    (line,) = faults(text)
    beginning, rule = ONE_FAULT[text]
    assert line.startswith(beginning)
    assert rule in line


def test_all_faults_are_given_at_once() -> None:
    lines = faults("""
    rule: ties_merging
    keep: 2
    scaling: x
    odd: 1
    before: {name: mask_tails, beta: 3}
    after: nothing
    choose: {keep: [], by: luck}
    """)
    beginnings = [line.split(" ")[0].rstrip(":") for line in lines]
    assert sorted(beginnings) == sorted(
        ["keep", "scaling", "odd", "before.beta", "after", "choose.keep", "choose.by"]
    )
    with pytest.raises(InputError) as caught:
        parse_methods({"a": {"rule": "odd"}, "b": {}, "average": {"rule": "iso_c"}}, "robust")
    assert str(caught.value).startswith("robust: 3 faults")
    lines = faults("{adapt: layer_wise, steps: 0, learning_rate: x, start: 2, odd: 1, before: no1}")
    assert len(lines) == 5


@pytest.mark.parametrize("name", [*RESERVED, "T", "a-b", "", False, 83])
def test_names_are_free_but_for_reserved_and_unreadable_ones(name: Any) -> None:
    (line,) = methods_faults({name: {"rule": "iso_c"}})
    assert line.startswith(f"methods.{name}: ")


@pytest.mark.parametrize("section", [None, {}, 3, ["iso_c"]])
def test_a_section_must_hold_methods(section: Any) -> None:
    assert "must have an entry a method" in methods_faults(section)[0]


def test_where_there_is_nothing_to_choose_by_choose_is_a_fault() -> None:
    section = {"a": {"rule": "iso_c", "choose": {"scaling": [1], "by": "accuracy"}}}
    assert methods_faults(section) == []
    (line,) = methods_faults(section, "robustness.methods", may_choose=False)
    assert line.startswith("robustness.methods.a.choose: ")


def test_a_stage_says_so_where_a_method_has_become_another_kind() -> None:
    section = {"a": {"rule": "iso_c"}, "b": {"rule": "odd"}}
    assert parse_as(RuleMethod, "a", section).rule == "iso_c"
    with pytest.raises(InputError, match=r"methods\.a has `rule` now; write dvc\.yaml anew"):
        parse_as(AdaptMethod, "a", section)
    with pytest.raises(InputError, match=r"methods\.b\.rule = 'odd'"):
        parse_as(RuleMethod, "b", section)


@pytest.mark.parametrize("name", RULES)
def test_defaults_of_every_rule_are_accepted(name: str) -> None:
    values = {key: each.default for key, each in RULES[name].parameters.items()}
    assert methods_faults({"a": {"rule": name, **values}}) == []


@pytest.mark.parametrize("name", BEFORE)
def test_defaults_of_everything_before_are_accepted(name: str) -> None:
    values = {key: each.default for key, each in BEFORE[name].parameters.items()}
    entry = {"rule": "task_arithmetic", "before": {"name": name, **values}}
    assert methods_faults({"a": entry}) == []


def test_ranges_are_known_without_a_model() -> None:
    """Where no task changed anything, every range is checked all the same."""
    unchanged = TaskVectors({"w": torch.ones(2, 2)}, ("a", "b"), {})
    with pytest.raises(InputError, match="keep = 2"):
        BEFORE["trim_and_elect"](unchanged, keep=2)
