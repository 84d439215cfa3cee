"""Merge rules and preprocessings of task vectors, one file a family, by name in a registry."""

import importlib
import pkgutil

from adamerge_core.merging.averaging import task_arithmetic, weight_averaging
from adamerge_core.merging.registry import PREPROCESSINGS, RULES, merge_rule, preprocessing
from adamerge_core.merging.ties import ties_merging, trim_and_elect

for _module in pkgutil.iter_modules(__path__):  # a new file's rules register themselves
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "PREPROCESSINGS",
    "RULES",
    "merge_rule",
    "preprocessing",
    "task_arithmetic",
    "ties_merging",
    "trim_and_elect",
    "weight_averaging",
]
