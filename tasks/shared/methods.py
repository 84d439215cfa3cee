"""What stands in a method, put together: before, rule, after."""

from typing import TYPE_CHECKING, Any

from adamerge_core.checkpoints import StateDict
from adamerge_core.merging.registry import AFTER, BEFORE, RULES, Entry
from adamerge_core.running_statistics import average_running_statistics
from adamerge_core.task_vectors import TaskVectors
from tasks.shared.task_vectors import Statistics

if TYPE_CHECKING:
    from tasks.suite.methods import Method, RuleMethod


def make_model(
    method: "RuleMethod", task_vectors: TaskVectors, statistics: Statistics
) -> StateDict:
    """Merge by a rule, with what the method puts before and after it.

    statistics: of all kinds that `method.needs`.
    """
    rule = RULES[method.rule]
    inputs = [change_before(method, task_vectors), *_needed(rule, statistics)]
    merged = rule(*inputs, **method.parameters)
    return change_after(method, merged, task_vectors, statistics)


def change_before(method: "Method", task_vectors: TaskVectors) -> TaskVectors:
    """Return the task vectors that the method merges, running statistics averaged."""
    vectors = average_running_statistics(task_vectors)
    if method.before is None:
        return vectors
    changed: TaskVectors = BEFORE[method.before.name](vectors, **method.before.parameters)
    return changed


def change_after(
    method: "Method", merged: StateDict, task_vectors: TaskVectors, statistics: Statistics
) -> StateDict:
    """Return the method's model, of what was merged; task_vectors: as they were at first."""
    if method.after is None:
        return merged
    after = AFTER[method.after.name]
    needed = _needed(after, statistics)
    changed: StateDict = after(merged, task_vectors, *needed, **method.after.parameters)
    return changed


def _needed(entry: Entry, statistics: Statistics) -> list[Any]:
    return [statistics[entry.needs]] if entry.needs else []
