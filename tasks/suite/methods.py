"""The section merge of a suite: a method's name says what its parameters are."""

from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    StrictBool,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from adamerge_core.errors import InputError
from tasks.suite.fields import (
    Coefficient,
    Count,
    Finite,
    Name,
    Positive,
    Scalings,
    Section,
    Share,
    one_of,
)
from tasks.suite.rules import (
    Parameter,
    Rule,
    merge_rules,
    objectives,
    preprocessings,
    presets,
    required_of_adaptations,
)


class Method(Section):
    """The parameters of a merging method."""

    kind: ClassVar[str] = "merge"
    """The stage that makes its model: merge, sweep or adapt."""


class Sweep(Method):
    """A rule at the best of several scalings, and the rule's other parameters."""

    kind = "sweep"
    scalings: Scalings


class Adaptation(Method):
    kind = "adapt"
    steps: Count
    images_per_task: Count
    batches_per_step: Count | None = None
    learning_rate: Positive
    start: Coefficient


class AdaptationMethod(Adaptation):
    """An adaptation with all that adamerge_core.adamerging.AdaptationSettings takes; what is left
    out is as published.
    """

    preset: Annotated[str, one_of(presets)] | None = None
    """Of adamerge_core.adamerging.PRESETS: its values are those of what the entry leaves out."""
    start: Finite
    """In [0, 1] unless nothing clamps the coefficients."""
    granularity: Literal["task_wise", "layer_wise", "singular_components"] | None = None
    """By default what the method's name begins with, layer_wise if with neither."""
    objective: Annotated[str, one_of(objectives)] | None = None
    """self_labelling learns from the individual models' predictions; cross_entropy from the true
    labels of the images, a reference that no method without labels can reach."""
    clamp: Literal["published", "projected", "none"] | None = None
    schedule: Literal["constant", "cosine"] | None = None
    unlabeled_share: Share | None = None
    held_out_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Above 0, adaptation stops early."""
    measure_every: Count | None = None
    patience: Count | None = None
    rank_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of AdaRank: the share of singular components that start unmasked."""
    temperature: Positive | None = None
    """Of AdaRank's masks."""

    @model_validator(mode="before")
    @classmethod
    def _filled_in_by_its_preset(cls, entry: Any) -> Any:
        if not isinstance(entry, Mapping) or entry.get("preset") is None:
            return entry
        given = {name: value for name, value in entry.items() if value is not None}
        # where the preset is unknown, that is the fault, not what it leaves out
        return presets().get(str(given["preset"]), required_of_adaptations()) | given

    @model_validator(mode="after")
    def _fitting_together(self) -> "AdaptationMethod":
        faults, singular = [], self.granularity == "singular_components"
        clamped = not singular and self.clamp != "none"
        if clamped and not 0 <= self.start <= 1:
            faults.append(f"start = {self.start}: must be in [0, 1], or clamp must be none")
        if singular and self.clamp not in (None, "none"):
            faults.append(f"clamp = {self.clamp!r}: singular_components has none; leave it out")
        faults += [
            f"{name} = {getattr(self, name)}: is only of granularity singular_components"
            for name in ("rank_share", "temperature")
            if getattr(self, name) is not None and not singular
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self


class AdaptationPlusPlus(AdaptationMethod):
    """Over trim_and_elect."""

    keep: Share = Field(default_factory=lambda: _its_default("trim_and_elect", "keep"))


def _its_default(preprocessing: str, parameter: str) -> Any:
    return preprocessings()[preprocessing].parameters[parameter].default


class PreprocessedAdaptation(AdaptationMethod):
    """Over any preprocessing of the task vectors, or none."""

    preprocessing: Annotated[str, one_of(preprocessings)] | None = None
    preprocessing_parameters: Annotated[dict[str, Any] | None, Field(validate_default=True)] = None

    @field_validator("preprocessing_parameters")
    @classmethod
    def _its_parameters(
        cls, parameters: dict[str, Any] | None, info: ValidationInfo
    ) -> dict[str, Any] | None:
        """Checked, defaults filled in."""
        name = info.data.get("preprocessing")
        if name is None:
            if parameters and "preprocessing" in info.data:
                raise ValueError("there is no preprocessing to take them; name one")
            return parameters
        section = _section_of_preprocessing(name)
        return section.model_validate(parameters or {}).model_dump()


_ADAPTATIONS = (
    "task_wise_adamerging",
    "task_wise_adamerging_pp",
    "layer_wise_adamerging",
    "layer_wise_adamerging_pp",
)
"""Those of the paper; any other name is that of a rule, or has `steps` or `preset`."""


def _method_type(name: str, content: Any) -> type[Method] | None:
    """What the parameters of a method must be; None for a name that means no method."""
    if name in merge_rules():
        return _section_of_rule(name, Method)
    swept = merge_rules().get(name.removesuffix("_best"))
    if swept and "scaling" in swept.parameters:
        return _section_of_rule(swept.name, Sweep)
    adapts = isinstance(content, Mapping) and not {"steps", "preset"}.isdisjoint(content)
    if adapts or name in _ADAPTATIONS:
        return AdaptationPlusPlus if name.endswith("_pp") else PreprocessedAdaptation
    return None


@cache
def _section_of_rule(name: str, base: type[Method]) -> type[Method]:
    """The parameters of a merge rule with its defaults; a sweep sets `scaling`."""
    fields = _fields(merge_rules()[name])
    if issubclass(base, Sweep):
        del fields["scaling"]
    return create_model(name, __base__=base, **fields)


@cache
def _section_of_preprocessing(name: str) -> type[Section]:
    return create_model(name, __base__=Section, **_fields(preprocessings()[name]))


def _fields(rule: Rule) -> dict[str, Any]:
    return {key: (_type(key, each), each.default) for key, each in rule.parameters.items()}


RANGES: dict[str, Any] = {"scaling": Positive, "keep": Share}
"""What these names mean in every rule; the ranges of others are the rule's (rule_parameters)."""

_TYPES: dict[str, Any] = {
    "float": Finite,
    "int": Annotated[int, Field(strict=True)],
    "str": str,
    "bool": StrictBool,
    "None": None,
}


def _type(name: str, parameter: Parameter) -> Any:
    """What a suite may give for a parameter, by its annotation; anything where that says more."""
    if parameter.annotation == "float" and name in RANGES:
        return RANGES[name]
    names = (parameter.annotation or type(parameter.default).__name__).split(" | ")
    if not set(names) <= set(_TYPES):
        return Any
    return reduce(or_, (_TYPES[each] for each in names))


class Merge(RootModel[dict[Name, SerializeAsAny[Method]]]):
    """The methods to run, in the order of the tables; one that is left out is not run."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _each_by_its_name(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        checked, faults = {}, []
        for name, parameters in content.items():
            if parameters is None:
                continue
            section = _method_type(str(name), parameters)
            if section is None:
                fault = PydanticCustomError("unknown_method", "is no method")
                faults.append(InitErrorDetails(type=fault, loc=(name,), input=parameters))
                continue
            try:
                checked[name] = section.model_validate(parameters)
            except ValidationError as error:
                faults += [_below(name, fault) for fault in error.errors()]
        if content.get("task_arithmetic") is None:
            fault = PydanticCustomError("missing", "is missing")
            faults.append(InitErrorDetails(type=fault, loc=("task_arithmetic",), input=content))
        if faults:
            raise ValidationError.from_exception_data("merge", faults)
        return checked

    def __getitem__(self, method: str) -> Any:
        """The parameters of a method. Raises InputError if it is not of this suite."""
        if method not in self.root:
            known = ", ".join(self.root)
            raise InputError(f"method {method!r}: not one of this suite's; known are {known}")
        return self.root[method]

    def of_kind(self, kind: str) -> list[str]:
        """The methods whose models the stage merge, sweep or adapt makes."""
        return [name for name, parameters in self.root.items() if parameters.kind == kind]

    def rule(self, method: str) -> Rule | None:
        """The merge rule of a method; None for one that adapts."""
        kind = self[method].kind
        if kind == "adapt":
            return None
        return merge_rules()[method.removesuffix("_best") if kind == "sweep" else method]

    def preprocessing(self, method: str) -> Rule | None:
        """What an adaptation does to the task vectors first, if anything."""
        if isinstance(self[method], AdaptationPlusPlus):
            return preprocessings()["trim_and_elect"]
        name = getattr(self[method], "preprocessing", None)
        return preprocessings()[name] if name else None

    def granularity(self, method: str) -> str:
        """What an adaptation learns: task_wise, layer_wise or singular_components."""
        chosen: str | None = self[method].granularity
        return chosen or ("task_wise" if method.startswith("task_wise") else "layer_wise")

    @property
    def statistics(self) -> list[str]:
        """The statistics that the methods need, each once."""
        rules = [self.rule(method) for method in self.root]
        return list(dict.fromkeys(rule.needs for rule in rules if rule and rule.needs))


def _below(name: str, fault: Any) -> InitErrorDetails:
    """A fault of a method's section as one of the section merge."""
    kind = PydanticCustomError(fault["type"], fault["msg"])
    return InitErrorDetails(type=kind, loc=(name, *fault["loc"]), input=fault["input"])
