"""The registry of everything that can stand in a method: what a decorator over a function adds.

A part is one function in one file of this package, found by its name. Its docstring's first
paragraph is what `adamerge methods` prints; its keyword parameters, with their defaults, are the
method's.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from adamerge_core.checkpoints import non_finite
from adamerge_core.errors import InputError
from adamerge_core.parameters import REALS, REQUIRED, Parameter, faults, of_function
from adamerge_core.task_vectors import TaskVectors

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered function, called as the function is."""

    name: str
    summary: str
    """Its docstring's first paragraph, on one line."""
    doc: str
    """Its docstring."""
    source: str
    """The paper, and where in it the formula stands."""
    needs: str | None
    """What it takes beside its other inputs; None where it needs no more data.

    Of a rule or what stands after: a statistic per task, a name of adamerge_core.statistics. Of an
    objective or a criterion: "labels" or "experts", what its targets are.
    """
    parameters: Mapping[str, Parameter]
    """Its keyword parameters by name."""
    module: str
    """The dotted name of the module that it stands in."""
    function: Callable[..., Any]
    start: float = 0.3
    """Of what stands before: the coefficient of every task where adaptation starts."""
    better: Literal["higher", "lower"] = "higher"
    """Of a criterion: which values are better."""

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        return self.function(*arguments, **parameters)


_SHOWN = 20

RULES: dict[str, Entry] = {}
"""Merge rules: (TaskVectors, [statistics,] **parameters) -> the merged state dict."""

BEFORE: dict[str, Entry] = {}
"""Before a rule or an adaptation: (TaskVectors, **parameters) -> TaskVectors."""

AFTER: dict[str, Entry] = {}
"""After them: (merged state dict, TaskVectors, [statistics,] **parameters) -> state dict."""

CRITERIA: dict[str, Entry] = {}
"""What the best value of a parameter is chosen by: (logits [N, classes], targets) -> [N]."""


def merge_rule(*, source: str, needs: str | None = None) -> Callable[[Function], Function]:
    """Register a function (TaskVectors, **parameters) -> StateDict as a merge rule.

    needs: the statistic that the function takes as its second argument, {task: state dict}; a name
    of adamerge_core.statistics.
    """
    return register(
        RULES, 1 if needs is None else 2, _finite_merge, vectors_at=0, source=source, needs=needs
    )


def before(*, source: str, start: float = 0.3) -> Callable[[Function], Function]:
    """Register a function (TaskVectors, **parameters) -> TaskVectors to stand before merging.

    start: the coefficient of every task with which what comes out sums to the merge of the rule
    that the function is part of: where adaptation starts.
    """
    return register(BEFORE, 1, vectors_at=0, source=source, start=start)


def after(*, source: str, needs: str | None = None) -> Callable[[Function], Function]:
    """Register a function (StateDict, TaskVectors, **parameters) -> StateDict to stand after it.

    It gets the merged state dict and the task vectors as they were before anything changed them.
    needs: the statistic that the function takes as its third argument, {task: state dict}; a name
    of adamerge_core.statistics.
    """
    return register(
        AFTER, 2 if needs is None else 3, _finite_merge, vectors_at=1, source=source, needs=needs
    )


def criterion(
    *,
    source: str,
    needs: Literal["labels", "experts"] | None = None,
    better: Literal["higher", "lower"],
) -> Callable[[Function], Function]:
    """Register a function (logits [N, classes], targets) -> [N] to choose a parameter's value by.

    It is averaged over a task's validation images, then over the tasks. needs: what the targets
    are: labels [N], the experts' class probabilities [N, classes], or None where it takes none.
    """
    return register(CRITERIA, 2, source=source, needs=needs, better=better)


def register(
    registry: dict[str, Entry],
    positional: int,
    check: Callable[[str, Any], None] | None = None,
    vectors_at: int | None = None,
    **facts: Any,
) -> Callable[[Function], Function]:
    """Add a function to a registry under its own name; its first `positional` arguments are inputs.

    From then on, however it is called, it raises InputError listing parameters that are unknown or
    of another type, and an input that is no TaskVectors where they belong. check: of the name and
    what the function returned. vectors_at: the number of the input that must be TaskVectors.
    facts: of the entry, by field. Raises TypeError where a parameter has no default, or there is an
    entry of that name.
    """

    def add(function: Function) -> Function:
        name = function.__name__
        parameters = of_function(function, positional)
        unset = [key for key, each in parameters.items() if each.default is REQUIRED]
        if unset:
            raise TypeError(f"{name}: parameters {', '.join(unset)} need a default")
        if name in registry:
            raise TypeError(f"{name}: registered twice; give the function another name")
        doc = inspect.getdoc(function) or ""

        # most objectives and criteria take nothing that could be checked, and are called every step
        needs_checks = bool(parameters) or vectors_at is not None

        @wraps(function)
        def checked(*inputs: Any, **given: Any) -> Any:
            named = dict(zip(parameters, inputs[positional:], strict=False)) | given
            _refuse_misfits(name, inputs, vectors_at, faults(parameters, named, REALS))
            result = function(*inputs, **given)
            if check:
                check(name, result)
            return result

        registry[name] = Entry(
            name=name,
            summary=doc.split("\n\n")[0].replace("\n", " "),
            doc=doc,
            parameters=parameters,
            module=function.__module__,
            function=checked if needs_checks else function,
            **{"needs": None, **facts},
        )
        return cast(Function, checked) if needs_checks else function

    return add


def _refuse_misfits(
    name: str, inputs: tuple[Any, ...], vectors_at: int | None, misfits: list[str]
) -> None:
    if vectors_at is not None and len(inputs) > vectors_at:
        given = inputs[vectors_at]
        if not isinstance(given, TaskVectors):
            misfits = [f"input {vectors_at + 1} is {type(given).__name__}: give TaskVectors"]
    if misfits:
        raise InputError.listing(name, misfits)


def _finite_merge(name: str, merged: Mapping[str, Any]) -> None:
    """Raise InputError listing the tensors of a merged model that are not finite."""
    unfit = non_finite("merged model", merged)
    if unfit:
        unfit.append("fix: give smaller parameters, or models in a wider dtype")
        raise InputError.listing(f"{name}: a merge that is not finite", unfit, _SHOWN)
