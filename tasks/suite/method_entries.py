"""What all methods of a suite have in common: what stands before and after, and `choose`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from adamerge_core import parameters as core
from adamerge_core.merging.registry import AFTER, BEFORE, CRITERIA, Entry
from adamerge_core.method_values import faults_of
from adamerge_core.parameters import Parameter
from tasks.suite.fields import MANY, shown

MANY_TASKS = 100
"""So many that no check of a rule depends on their number."""


class Part(BaseModel):
    """A registered function that stands before or after, with its parameters."""

    model_config = ConfigDict(frozen=True)

    name: str
    parameters: Mapping[str, Any]


class Choose(BaseModel):
    """The values of one parameter to try, and what the best is chosen by."""

    model_config = ConfigDict(frozen=True)

    parameter: str
    """Of the method itself; `before.keep` of what stands before it, `after.x` after it."""
    values: tuple[Any, ...]
    by: str


@dataclass(frozen=True)
class Parts:
    """What a method is made of, by name; None where it has no such part."""

    rule: str | None
    adapt: str | None
    """A granularity."""
    before: str | None
    after: str | None
    objective: str | None
    choose: str | None
    """A criterion."""


class MethodEntry(BaseModel):
    """What rules and adaptations have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: Mapping[str, Any]
    """Of the rule, or of AdaptationSettings and, with singular_components, of SingularMasks."""
    before: Part | None = None
    after: Part | None = None
    choose: Choose | None = None

    own: ClassVar[tuple[str, ...]]
    """Keys of an entry that are no parameters."""

    @model_validator(mode="before")
    @classmethod
    def _with_its_parameters_apart(cls, entry: Any) -> Any:
        kept = {key: value for key, value in entry.items() if key in cls.own}
        return kept | {"parameters": {k: v for k, v in entry.items() if k not in cls.own}}

    @field_validator("before", "after", mode="before")
    @classmethod
    def _registered(cls, given: Any, info: ValidationInfo) -> Any:
        place = str(info.field_name)
        registry = {"before": BEFORE, "after": AFTER}[place]
        name, values = _name_and_parameters(given, place)
        if name not in registry:
            raise ValueError(f"{place} = {shown(name)}: must be one of {listed(registry)}")
        refuse(faults_of(registry[name], values, tasks_of(info)), f"{place}.")
        return {"name": name, "parameters": values}

    @field_validator("choose", mode="before")
    @classmethod
    def _with_one_parameter(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or len(given) != 2 or "by" not in given:
            raise ValueError(
                f"choose = {shown(given)}: must be the values of one parameter and a criterion, "
                "for example {scaling: [0.1, 0.3], by: accuracy}"
            )
        (parameter,) = (key for key in given if key != "by")
        values, by = given[parameter], given["by"]
        faults = []
        if not isinstance(values, list | tuple) or not values:
            faults.append(f"{parameter} = {shown(values)}: must be a list of the values to try")
        elif len(values) > MANY or len(set(map(str, values))) < len(values):
            faults.append(f"{parameter} = {shown(values)}: must be at most {MANY}, each once")
        if not isinstance(by, str) or by not in CRITERIA:
            faults.append(f"by = {shown(by)}: must be one of {listed(CRITERIA)}")
        refuse(faults, "choose.")
        return {"parameter": parameter, "values": tuple(values), "by": by}

    @model_validator(mode="after")
    def _choosing_what_there_is(self, info: ValidationInfo) -> Self:
        if self.choose:
            refuse(_faults_of_choice(self, self.choose, tasks_of(info)), "choose.")
        return self

    @property
    def known(self) -> Mapping[str, Parameter]:
        """What may stand beside `rule` or `adapt`."""
        raise NotImplementedError

    def faults(self, tasks: int) -> list[str]:
        """List what the rule, or the settings, refuse of its parameters, a line each."""
        raise NotImplementedError

    @property
    def criterion(self) -> Entry | None:
        """What `choose` goes by."""
        return CRITERIA[self.choose.by] if self.choose else None

    @property
    def around(self) -> list[Entry]:
        """What stands before and after."""
        before = [BEFORE[self.before.name]] if self.before else []
        return before + ([AFTER[self.after.name]] if self.after else [])

    def _made_of(
        self, rule: str | None = None, adapt: str | None = None, objective: str | None = None
    ) -> Parts:
        return Parts(
            rule=rule,
            adapt=adapt,
            before=self.before.name if self.before else None,
            after=self.after.name if self.after else None,
            objective=objective,
            choose=self.choose.by if self.choose else None,
        )

    def varied(self, **values: Any) -> Self:
        """Make the method with other values of its own parameters."""
        return self.model_copy(update={"parameters": {**self.parameters, **values}})

    def with_value(self, value: Any) -> Self:
        """Make the method with a value for the parameter of `choose`, and without `choose`."""
        if not self.choose:
            raise ValueError("this method has nothing to choose")
        place, _, name = self.choose.parameter.rpartition(".")
        holder: Any = getattr(self, place) if place else self
        changed: Any = {**holder.parameters, name: value}
        if place:
            changed = {place: holder.model_copy(update={"parameters": changed})}
        else:
            changed = {"parameters": changed}
        copy: Any = self.model_copy(update={**changed, "choose": None})
        return copy


def refuse(faults: list[str], prefix: str = "") -> None:
    """Raise what pydantic collects, a line for each fault, where there are any."""
    if faults:
        raise ValueError("\n".join(prefix + fault for fault in faults))


def _faults_of_choice(method: MethodEntry, choose: Choose, tasks: int) -> list[str]:
    """Whether the parameter is there to choose, and takes every value."""
    place, _, name = choose.parameter.rpartition(".")
    part = getattr(method, place, None) if place in ("before", "after") else None
    if place and part is None:
        return [f"{choose.parameter}: the method has no {place!r} with such a parameter"]
    known = _registry(place)[part.name].parameters if part else method.known
    if name not in known:
        return core.faults(
            {f"{place}.{k}" if place else k: v for k, v in known.items()}, {choose.parameter: None}
        )
    if name in (part.parameters if part else method.parameters):
        return [f"{choose.parameter}: has a value in the method too; remove one of the two"]
    faults = []
    for value in choose.values:
        lines = core.faults({name: known[name]}, {name: value}, core.REALS)
        if not lines:
            changed = method.with_value(value)
            entry = _registry(place)[part.name] if part else None
            values = getattr(changed, place).parameters if part else {}
            lines = faults_of(entry, values, tasks) if entry else changed.faults(tasks)
        faults += [f"{place}.{line}" if place else line for line in lines]
    return faults


def _registry(place: str) -> Mapping[str, Entry]:
    return BEFORE if place == "before" else AFTER


def _name_and_parameters(given: Any, place: str) -> tuple[str, dict[str, Any]]:
    """Of what is written as a bare name, or as {name: N, its parameters}."""
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return given["name"], {k: v for k, v in given.items() if k != "name"}
    raise ValueError(f"{place} = {shown(given)}: must be a name, or {{name: N, its parameters}}")


def tasks_of(info: ValidationInfo) -> int:
    """Return how many tasks are merged."""
    return int((info.context or {}).get("tasks", MANY_TASKS))


def listed(registry: Mapping[str, Any]) -> str:
    """List the names of a registry."""
    return ", ".join(registry) or "those registered, and there are none"
