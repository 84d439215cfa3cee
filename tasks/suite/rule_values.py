"""Whether the merge rules and preprocessings of a suite take the values that it gives them.

What a value may be beyond its type is known to the rule alone, which says so when it is called: by
a stage, after all that comes before it. Here each is called on a model that no task changed, which
takes no time. It needs torch, so only what stands off the defaults, and has no range that the suite
knows, is called.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite.methods import RANGES
from tasks.suite.rules import Rule
from tasks.suite.schema import Suite


@dataclass(frozen=True)
class _Call:
    key: str
    """Of the entry in the suite."""
    rule: Rule
    parameters: dict[str, Any]


def check(suite: Suite) -> None:
    """Raises InputError listing what the rules refuse."""
    calls = [call for call in _calls(suite) if _has_changed(call)]
    faults = _refusals(calls, suite.task_names) if calls else []
    if faults:
        raise InputError.listing(f"suite {suite.name}", faults)


def _calls(suite: Suite) -> Iterator[_Call]:
    for method, section in suite.merge.root.items():
        given = section.model_dump()
        if rule := suite.merge.rule(method):
            own = {name: given[name] for name in rule.parameters if name in given}
            yield _Call(f"merge.{method}", rule, own)
        elif over := suite.merge.preprocessing(method):
            own = given.get("preprocessing_parameters") or {}
            yield _Call(f"merge.{method}.preprocessing_parameters", over, own)


def _has_changed(call: _Call) -> bool:
    return any(
        value != call.rule.parameters[name].default
        for name, value in call.parameters.items()
        if name not in RANGES
    )


def _refusals(calls: list[_Call], task_names: tuple[str, ...]) -> list[str]:
    import torch

    from adamerge_core.merging import PREPROCESSINGS, RULES
    from adamerge_core.task_vectors import TaskVectors

    weight = {"blocks.0.weight": torch.eye(2)}
    unchanged = TaskVectors(weight, task_names, {})
    statistics = dict.fromkeys(task_names, weight)  # a square's are of its own shape
    faults = []
    for call in calls:
        function = {"merge_rule": RULES, "preprocessing": PREPROCESSINGS}[call.rule.kind]
        inputs = [unchanged, statistics] if call.rule.needs else [unchanged]
        try:
            function[call.rule.name](*inputs, **call.parameters)
        except InputError as error:
            faults.append(f"{call.key}: {error}".replace("\n", "\n  "))
    return faults
