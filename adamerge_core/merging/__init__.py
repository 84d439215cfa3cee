"""What methods are made of, one file a family, by name in registries: rules, what stands before and
after them, criteria."""

import importlib
import pkgutil

from adamerge_core.merging.averaging import task_arithmetic, weight_averaging
from adamerge_core.merging.registry import (
    AFTER,
    BEFORE,
    CRITERIA,
    RULES,
    after,
    before,
    criterion,
    merge_rule,
)
from adamerge_core.merging.ties import ties_merging, trim_and_elect

for _module in pkgutil.iter_modules(__path__):  # what a new file registers is there
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AFTER",
    "BEFORE",
    "CRITERIA",
    "RULES",
    "after",
    "before",
    "criterion",
    "merge_rule",
    "task_arithmetic",
    "ties_merging",
    "trim_and_elect",
    "weight_averaging",
]
