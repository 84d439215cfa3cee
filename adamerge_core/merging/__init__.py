"""Merge rules that need no data, by name."""

from collections.abc import Callable

from adamerge_core.checkpoints import StateDict
from adamerge_core.merging.averaging import task_arithmetic, weight_averaging
from adamerge_core.merging.ties import ties_merging, trim_and_elect

RULES: dict[str, Callable[..., StateDict]] = {
    "weight_averaging": weight_averaging,
    "task_arithmetic": task_arithmetic,
    "ties_merging": ties_merging,
}
"""A rule takes task vectors and its own parameters by name, and gives the merged state dict."""

__all__ = ["RULES", "task_arithmetic", "ties_merging", "trim_and_elect", "weight_averaging"]
