"""Turns: which tasks give images in which step of an adaptation."""

from collections.abc import Sequence

from adamerge_core.parameters import shown

Turns = Sequence[Sequence[str]]
"""The tasks of each step, one step after the other, and again from the first."""


def turn_faults(turns: object, task_names: Sequence[str]) -> list[str]:
    """List what keeps `turns` from being turns of some tasks, a line each."""
    rule = "give for each step the names of its tasks, for example [('mnist',), ('svhn',)]"
    if not isinstance(turns, list | tuple) or not turns:
        return [f"turns = {shown(turns)}: {rule}"]
    faults = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, list | tuple) or not turn or len({*map(repr, turn)}) != len(turn):
            faults.append(f"turns[{number}] = {shown(turn)}: must have tasks, each once; {rule}")
            continue
        unknown = [name for name in turn if name not in task_names]
        faults += [
            f"turns[{number}]: {shown(name)} must be one of {', '.join(task_names)}"
            for name in unknown
        ]
    return faults


def tasks_at(step: int, turns: Turns | None, task_names: Sequence[str]) -> list[str]:
    """Name the tasks of a step, counted from 0, in the order of `task_names`."""
    if turns is None:
        return list(task_names)
    turn = turns[step % len(turns)]
    return [name for name in task_names if name in turn]


def turns_before(step: int, turns: Turns | None, task_name: str) -> int:
    """Count the steps before a step, counted from 0, in which a task gave images."""
    if turns is None:
        return step
    rounds, rest = divmod(step, len(turns))
    own = [task_name in turn for turn in turns]
    return rounds * sum(own) + sum(own[:rest])
