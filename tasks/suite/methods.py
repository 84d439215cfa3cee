"""The methods of a suite: what an entry says, checked against the registries of the core.

An entry has `rule` or `adapt`, and beside it, flat, the parameters of the rule or the settings of
the adaptation; `before` and `after` name registered functions, `choose` a parameter and the values
to try. It keeps what the suite says: defaults are the core's.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.settings import (
    GRANULARITIES,
    PRESETS,
    AdaptationSettings,
    settings_of,
)
from adamerge_core.merging.registry import RULES
from adamerge_core.method_values import (
    MASK_OPTIONS,
    SETTINGS,
    faults_of,
    faults_of_settings,
    known_settings,
)
from adamerge_core.parameters import Parameter
from tasks.suite.fields import MANY, NAME_RULE, REFERENCES, is_name, listing, shown, written
from tasks.suite.method_entries import (
    MANY_TASKS,
    MethodEntry,
    Parts,
    listed,
    refuse,
    tasks_of,
)

RESERVED = (*REFERENCES, "average")
"""Rows and columns of every table, which no method may be called."""

NO_DATA, UNLABELED = "none", "unlabeled images"
VALIDATION_LABELS, TEST_LABELS = "labels of validation images", "labels of test images"


class RuleMethod(MethodEntry):
    """A merge rule with its parameters."""

    own = ("rule", "before", "after", "choose")
    adapts: ClassVar[bool] = False
    supervised: ClassVar[bool] = False
    """Whether it learned from the true labels of test images."""

    rule: str

    @field_validator("rule")
    @classmethod
    def _with_its_parameters(cls, name: str, info: ValidationInfo) -> str:
        if name not in RULES:
            raise ValueError(f"rule = {shown(name)}: must be one of {listed(RULES)}")
        refuse(faults_of(RULES[name], info.data["parameters"], tasks_of(info)))
        return name

    @property
    def known(self) -> Mapping[str, Parameter]:
        return RULES[self.rule].parameters

    def faults(self, tasks: int) -> list[str]:
        return faults_of(RULES[self.rule], self.parameters, tasks)

    @property
    def needs(self) -> tuple[str, ...]:
        """The statistics that it takes, per task."""
        kinds = [RULES[self.rule].needs, *(each.needs for each in self.around)]
        return tuple(dict.fromkeys(kind for kind in kinds if kind))

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its parts, beyond those of the stage that makes its model."""
        parts = [RULES[self.rule], *self.around, *([self.criterion] if self.criterion else [])]
        return tuple(dict.fromkeys(part.module for part in parts))

    @property
    def data(self) -> str:
        """What it used beside the models."""
        if self.criterion:
            return VALIDATION_LABELS if self.criterion.needs == "labels" else UNLABELED
        return UNLABELED if self.needs else NO_DATA

    @property
    def parts(self) -> Parts:
        return self._made_of(rule=self.rule)


class AdaptMethod(MethodEntry):
    """Coefficients learned on test images."""

    own = ("adapt", "preset", "before", "after", "choose")
    adapts: ClassVar[bool] = True

    adapt: Literal["task_wise", "layer_wise", "singular_components"]
    preset: str | None = Field(default=None, validate_default=True)

    @field_validator("preset")
    @classmethod
    def _with_the_settings(cls, name: str | None, info: ValidationInfo) -> str | None:
        faults = []
        if name is not None and name not in PRESETS:
            faults.append(f"preset = {shown(name)}: must be one of {listed(PRESETS)}")
        if "adapt" in info.data:
            preset = name if name in PRESETS else None
            given = info.data["parameters"]
            faults += faults_of_settings(info.data["adapt"], preset, given)
        refuse(faults)
        return name

    @property
    def known(self) -> Mapping[str, Parameter]:
        return known_settings(self.adapt)

    def faults(self, tasks: int) -> list[str]:
        return faults_of_settings(self.adapt, self.preset, self.parameters)

    @property
    def settings(self) -> AdaptationSettings:
        """The core's settings; what the entry leaves out is the preset's, or the core's default."""
        mine = {k: v for k, v in self.parameters.items() if k in SETTINGS}
        return settings_of(self.adapt, self.preset, **mine)

    @property
    def mask_options(self) -> dict[str, Any]:
        """What the entry says of SingularMasks."""
        return {k: v for k, v in self.parameters.items() if k in MASK_OPTIONS}

    @property
    def needs(self) -> tuple[str, ...]:
        """The statistics that it takes, per task."""
        return tuple(each.needs for each in self.around if each.needs)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its parts, beyond those of the stage that makes its model."""
        parts = [*self.around, *([self.criterion] if self.criterion else [])]
        return tuple(dict.fromkeys(part.module for part in parts))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it minimises: one objective, or all that `choose` tries."""
        if self.choose and self.choose.parameter == "objective":
            return self.choose.values
        return (self.settings.objective,)

    @property
    def supervised(self) -> bool:
        """Whether it learned from the true labels of test images."""
        return any(OBJECTIVES[name].needs == "labels" for name in self.objectives)

    @property
    def data(self) -> str:
        """What it used beside the models."""
        if self.supervised:
            return TEST_LABELS
        by_labels = self.criterion is not None and self.criterion.needs == "labels"
        return VALIDATION_LABELS if by_labels else UNLABELED

    @property
    def parts(self) -> Parts:
        return self._made_of(adapt=self.adapt, objective=" or ".join(self.objectives))


Method = RuleMethod | AdaptMethod
AnyMethod = TypeVar("AnyMethod", RuleMethod, AdaptMethod)


def parse_method(entry: Mapping[str, Any]) -> Method:
    """Read one entry. Raises InputError listing every fault."""
    method, faults = _read(entry, MANY_TASKS)
    if method is None:
        raise listing("method", faults)
    return method


def parse_as(kind: type[AnyMethod], name: str, section: Mapping[str, Any]) -> AnyMethod:
    """Read the entry of one name, which is to be of `kind`. Raises InputError listing every fault.

    The stage of a method is of one kind; dvc.yaml says which.
    """
    method, faults = _read(section[name], MANY_TASKS)
    if isinstance(method, kind):
        return method
    if method:
        said = "adapt" if method.adapts else "rule"
        faults = [f" has `{said}` now; write dvc.yaml anew: adamerge suite use"]
    raise listing("methods", [_with_its_key(f"methods.{name}", line) for line in faults])


def parse_methods(
    section: Mapping[str, Any],
    where: str = "methods",
    tasks: int = MANY_TASKS,
    may_choose: bool = True,
) -> dict[str, Method]:
    """Read a section of entries by name, in its order.

    tasks: how many are merged, which some rules check. may_choose: whether there are images to
    choose by. Raises InputError listing every fault.
    """
    methods, faults = _read_all(section, where, tasks, may_choose)
    if faults:
        raise listing(where, faults)
    return methods


def methods_faults(
    section: Any, where: str = "methods", tasks: int = MANY_TASKS, may_choose: bool = True
) -> list[str]:
    """List what is wrong with a section of entries, a line each; see parse_methods."""
    return _read_all(section, where, tasks, may_choose)[1]


def _read_all(
    section: Any, where: str, tasks: int, may_choose: bool
) -> tuple[dict[str, Method], list[str]]:
    if not isinstance(section, Mapping) or not section:
        return {}, [
            f"{where} = {shown(section)}: must have an entry a method, for example {_EXAMPLE}"
        ]
    if len(section) > MANY:
        return {}, [f"{where}: has {len(section)} entries; must have at most {MANY}"]
    methods, faults = {}, []
    for name, entry in section.items():
        key = f"{where}.{written(name)}"
        faults += _faults_of_name(name, key)
        method, lines = _read(entry, tasks)
        faults += [_with_its_key(key, line) for line in lines]
        if method and method.choose and not may_choose:
            faults.append(f"{key}.choose: there is nothing to choose by here; remove it")
        elif method:
            methods[str(name)] = method
    return methods, faults


def _with_its_key(key: str, line: str) -> str:
    return f"{key}{line}" if line[0] in " :" else f"{key}.{line}"


_EXAMPLE = "task_arithmetic: {rule: task_arithmetic, scaling: 0.3}"


def _faults_of_name(name: Any, key: str) -> list[str]:
    if not isinstance(name, str):
        return [f"{key}: YAML reads this name as {name!r}; put it in quotes"]
    if not is_name(name):
        return [f"{key}: {NAME_RULE}"]
    if name in RESERVED:
        return [f"{key}: is a row or column of every table; give it another name"]
    return []


def _read(entry: Any, tasks: int) -> tuple[Method | None, list[str]]:
    """The method, or None and its faults: lines that begin with a key, `:` or ` =`."""
    if not isinstance(entry, Mapping):
        return None, [
            f" = {shown(entry)}: must be a mapping, for example {{rule: task_arithmetic}}"
        ]
    strange = [key for key in entry if not isinstance(key, str)]
    if strange:
        return None, [f": YAML reads the key {key!r} as no text; mend it" for key in strange]
    kinds = [key for key in ("rule", "adapt") if key in entry]
    if len(kinds) != 1:
        said = "has both `rule` and `adapt`" if kinds else "has neither `rule` nor `adapt`"
        rules, granularities = listed(RULES), ", ".join(GRANULARITIES)
        return None, [f": {said}; give one: rule ({rules}) or adapt ({granularities})"]
    try:
        return _ENTRY.validate_python(dict(entry), context={"tasks": tasks}), []
    except ValidationError as error:
        return None, list(_lines(error))


def _lines(error: ValidationError) -> Iterator[str]:
    """A validator's own lines begin with their keys; pydantic's do not."""
    for fault in error.errors():
        if fault["type"] == "value_error":
            yield from str(fault["ctx"]["error"]).splitlines()
        else:
            key = ".".join(str(part) for part in fault["loc"][1:])
            yield f"{key} = {shown(fault['input'])}: {fault['msg']}"


_ENTRY: TypeAdapter[Method] = TypeAdapter(
    Annotated[
        Annotated[RuleMethod, Tag("rule")] | Annotated[AdaptMethod, Tag("adapt")],
        Discriminator(lambda entry: "rule" if "rule" in entry else "adapt"),
    ]
)
