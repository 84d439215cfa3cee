"""What a person may say of a run: on the command line, in prefect.yaml, on Prefect's page."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adamerge_core.errors import InputError
from tasks.suite.fields import Label, lines_of

if TYPE_CHECKING:  # DVC takes a second to import
    from flows.dvc.plan import Plan
    from tasks.graph.dvc_yaml import Stage

_NEAR = 5
_LONGEST_REASON = 1000


class RunParameters(BaseModel):
    """The parameters of a run of the pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: Label | None = None
    """Made the active one before; without it the active one is run."""
    targets: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = ()
    """Stages, or what stages run (`evaluate`): these and what is upstream; without any, all."""
    force: bool = False
    """Whether the targets, or without any all stages, run again though nothing has changed."""
    reason: Annotated[str, Field(max_length=_LONGEST_REASON)] = ""
    """Shown with the run."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "RunParameters":
        """Check values from outside. Raises InputError listing all that is wrong."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError.listing("the parameters of the run", lines_of(error)) from None

    def select(self, plan: "Plan", stages: Mapping[str, "Stage"]) -> "Plan":
        """Leave of a plan what the targets need, and force what is to run again.

        Raises InputError naming the targets that are none.
        """
        chosen = _matching(self.targets, plan, stages)
        kept = _with_upstream(chosen, plan) if self.targets else set(plan.upstream)
        forced = (chosen if self.targets else kept) if self.force else set()
        return replace(
            plan,
            upstream={name: above for name, above in plan.upstream.items() if name in kept},
            changed={name: why for name, why in plan.changed.items() if name in kept},
            forced=frozenset(forced),
        )


def _matching(targets: Collection[str], plan: "Plan", stages: Mapping[str, "Stage"]) -> set[str]:
    """Find the stages that targets name: by their names, their templates' or their phases'."""
    by_name: dict[str, set[str]] = {}
    for name in plan.upstream:
        names = {name, name.partition("@")[0]}
        for each in names | ({stages[name].phase} if name in stages else set()):
            by_name.setdefault(each, set()).add(name)
    faults = [_unknown(target, by_name) for target in targets if target not in by_name]
    if faults:
        raise InputError.listing("targets", faults)
    return {name for target in targets for name in by_name[target]}


def _unknown(target: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(target, known, n=_NEAR, cutoff=0.4)
    hint = f"; near are {', '.join(near)}" if near else ""
    return f"{target!r} is no stage, and nothing that stages run{hint}"


def _with_upstream(chosen: Collection[str], plan: "Plan") -> set[str]:
    found: set[str] = set()
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += plan.upstream[name]
    return found
