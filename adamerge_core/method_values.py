"""Whether registered functions and settings take the values that they are given."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from adamerge_core import parameters as core
from adamerge_core.adamerging.adarank import SingularMasks
from adamerge_core.adamerging.settings import AdaptationSettings, settings_of
from adamerge_core.errors import collected
from adamerge_core.merging.registry import AFTER, Entry
from adamerge_core.parameters import Parameter
from adamerge_core.task_vectors import TaskVectors


def faults_of(entry: Entry, given: Mapping[str, Any], tasks: int) -> list[str]:
    """List what is wrong with the parameters of a registered function, a line each.

    Names and types are checked by the registry; ranges, which the function alone knows, by a call
    on a model that none of so many tasks changed, which takes no time. What stands after a merge is
    not called: it may ask for layers that only a real model has.
    """
    fitting, faults = by_type(entry.parameters, given)
    if AFTER.get(entry.name) is entry:
        return faults
    return faults + _refusal(partial(_call, entry, fitting, tasks))


def by_type(
    known: Mapping[str, Parameter], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Split values into those whose names and types fit, and what is wrong with the others."""
    fitting, faults = {}, []
    for name, value in given.items():
        only = {name: known[name]} if name in known else known
        lines = core.faults(only, {name: value}, core.REALS)
        faults += lines
        if not lines:
            fitting[name] = value
    return fitting, faults


def _refusal(call: Callable[[], object]) -> list[str]:
    """The faults of the InputError that a call raises; none where it raises none."""
    faults: list[str] = []
    with collected(faults):
        call()
    return faults


def _call(entry: Entry, values: Mapping[str, Any], tasks: int) -> None:
    names = tuple(f"task_{number}" for number in range(tasks))
    weight = {"blocks.0.weight": torch.eye(2)}
    unchanged = TaskVectors(weight, names, {})
    # a square's statistics are of its own shape
    inputs = [unchanged, dict.fromkeys(names, weight)] if entry.needs else [unchanged]
    entry(*inputs, **values)


SETTINGS = {k: v for k, v in core.of_dataclass(AdaptationSettings).items() if k != "granularity"}
MASK_OPTIONS = core.of_function(SingularMasks.__init__, positional=2)


def known_settings(granularity: str) -> Mapping[str, Parameter]:
    """List what an adaptation of this granularity takes."""
    return SETTINGS | (MASK_OPTIONS if granularity == "singular_components" else {})


def faults_of_settings(granularity: str, preset: str | None, given: Mapping[str, Any]) -> list[str]:
    """List what is wrong with the settings of an adaptation, a line each."""
    fitting, faults = by_type(known_settings(granularity), given)
    own = {k: v for k, v in fitting.items() if k in SETTINGS}
    faults += settings_of(granularity, preset, **own).faults()
    masks = {k: v for k, v in fitting.items() if k in MASK_OPTIONS}
    unchanged = TaskVectors({}, ("task",), {})
    return faults + _refusal(lambda: SingularMasks(unchanged, **masks))
