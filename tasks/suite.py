"""The parameters of a suite: typed, frozen, every fault listed at once.

`params.yaml` holds the active suite; `suites/` one file each. Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping
from functools import cache, cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
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
from tasks.rules import Parameter, Rule, merge_rules, objectives, preprocessings

PARAMS_YAML = Path("params.yaml")
SUITES = Path("suites")

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
Coefficient = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Scalings = Annotated[tuple[Positive, ...], Field(min_length=1)]


class _Section(BaseModel):
    """A section of params.yaml: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Compute(_Section):
    device: Literal["cpu", "cuda"]
    threads: Count
    """Per stage process."""
    micro_batch: Count
    """Images per forward and backward pass of an adaptation."""


class Miniature(_Section):
    """Images that adamerge_core.vision.miniature makes; counts a split."""

    source: Literal["miniature"]
    seed: Seed
    pretrain: Count
    train: Count
    val: Count
    test: Count


class ImageFolder(_Section):
    """A user's own images: <path>/<split>/<class>/<file>, with splits train and test."""

    source: Literal["image_folder"]
    path: str
    templates: Annotated[tuple[Annotated[str, Field(pattern=r"\{\}")], ...], Field(min_length=1)]
    """Prompts of the zero-shot head, with {} for the class name."""
    seed: Seed = 0
    val_fraction: Share = 0.1
    """Of the training images, where there is no folder `val`."""
    pretrain_per_class: Count = 20
    """Training images set aside to train the text tower, where there is no folder `pretrain`."""


class Prepare(_Section):
    image_size: Count


class Corrupt(_Section):
    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]
    corruptions: Annotated[tuple[Name, ...], Field(min_length=1)]
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)]
    images: Count
    seed: Seed


class Model(_Section):
    architecture: str


class Pretrain(_Section):
    steps: Count
    captions_per_step: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    seed: Seed


class Finetune(_Section):
    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive


class TraditionalMtl(_Section):
    steps: Count


class Statistics(_Section):
    """What merge rules that need data compute from unlabeled images, once a task."""

    images: Count
    """Of each task, drawn with the seed; all where a task has fewer."""
    split: Literal["train", "val", "test"]
    fisher_probes: Count
    """See adamerge_core.statistics.fisher_diagonal."""


class Method(_Section):
    """The parameters of a merging method."""

    kind: ClassVar[str] = "merge"
    """The stage that makes its model: merge, sweep or adapt."""


class Sweep(Method):
    """A rule at the best of several scalings, and the rule's other parameters."""

    kind = "sweep"
    scalings: Scalings


class WeightAveraging(Method):
    pass


class TaskArithmetic(Method):
    scaling: Positive


class TaskArithmeticBest(Sweep):
    pass


class TiesMerging(Method):
    scaling: Positive
    keep: Share


class TiesMergingBest(Sweep):
    keep: Share


class Adaptation(Method):
    kind = "adapt"
    steps: Count
    images_per_task: Count
    learning_rate: Positive
    start: Coefficient


class AdaptationMethod(Adaptation):
    """An adaptation with all that adamerge_core.adamerging.AdaptationSettings takes; what is left
    out is as published.
    """

    granularity: Literal["task_wise", "layer_wise", "singular_components"] | None = None
    """By default what the method's name begins with, layer_wise if with neither."""
    objective: str | None = None
    """self_labelling learns from the individual models' predictions; cross_entropy from the true
    labels of the images, a reference that no method without labels can reach."""
    batches_per_step: Count | None = None
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

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str | None) -> str | None:
        return name if name is None else _one_of(name, objectives())

    @model_validator(mode="after")
    def _only_of_singular_components(self) -> "AdaptationMethod":
        faults, singular = [], self.granularity == "singular_components"
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

    keep: Share


class PreprocessedAdaptation(AdaptationMethod):
    """Over any preprocessing of the task vectors, or none."""

    preprocessing: str | None = None
    preprocessing_parameters: Annotated[dict[str, Any] | None, Field(validate_default=True)] = None

    @field_validator("preprocessing")
    @classmethod
    def _known_preprocessing(cls, name: str | None) -> str | None:
        return name if name is None else _one_of(name, preprocessings())

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


_METHODS: dict[str, type[Method]] = {
    "weight_averaging": WeightAveraging,
    "task_arithmetic": TaskArithmetic,
    "task_arithmetic_best": TaskArithmeticBest,
    "ties_merging": TiesMerging,
    "ties_merging_best": TiesMergingBest,
    "task_wise_adamerging": PreprocessedAdaptation,
    "task_wise_adamerging_pp": AdaptationPlusPlus,
    "layer_wise_adamerging": PreprocessedAdaptation,
    "layer_wise_adamerging_pp": AdaptationPlusPlus,
}
"""Those of the paper; any other name is that of a rule, or has `steps`."""


def _section_type(name: str, content: Any) -> type[Method] | None:
    """What the parameters of a method must be; None for a name that means no method."""
    if name in _METHODS:
        return _METHODS[name]
    if name in merge_rules():
        return _section_of_rule(name, Method)
    swept = merge_rules().get(name.removesuffix("_best"))
    if swept and "scaling" in swept.parameters:
        return _section_of_rule(swept.name, Sweep)
    if isinstance(content, Mapping) and "steps" in content:
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
def _section_of_preprocessing(name: str) -> type[_Section]:
    return create_model(name, __base__=_Section, **_fields(preprocessings()[name]))


def _fields(rule: Rule) -> dict[str, Any]:
    return {key: (_type(each), each.default) for key, each in rule.parameters.items()}


_TYPES: dict[str, Any] = {
    "float": Annotated[float, Field(allow_inf_nan=False)],
    "int": Annotated[int, Field(strict=True)],
    "str": str,
    "bool": StrictBool,
    "None": None,
}


def _type(parameter: Parameter) -> Any:
    """What a suite may give for a parameter, by its annotation; anything where that says more."""
    names = (parameter.annotation or type(parameter.default).__name__).split(" | ")
    if not set(names) <= set(_TYPES):
        return Any
    return reduce(or_, (_TYPES[name] for name in names))


def _one_of(name: str, known: Iterable[str]) -> str:
    listed = list(known)
    if name not in listed:
        raise ValueError(f"must be one of {', '.join(listed)}")
    return name


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
            section = _section_type(str(name), parameters)
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


class Evaluate(_Section):
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]
    trajectory_images: Count
    trajectory_points: Annotated[int, Field(ge=2)]


class EvaluateCorrupted(_Section):
    corruptions: Annotated[tuple[Name, ...], Field(min_length=1)]
    severity: Annotated[int, Field(ge=1, le=5)]
    adaptation: Adaptation


class Suite(_Section):
    """The parameters of one suite, as its file says them, checked."""

    suite: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    compute: Compute
    download: Annotated[
        dict[Name, Annotated[Miniature | ImageFolder, Field(discriminator="source")]],
        Field(min_length=1),
    ]
    prepare: Prepare
    corrupt: Corrupt
    model: Model
    pretrain: Pretrain
    finetune: Finetune
    traditional_mtl: TraditionalMtl
    statistics: Statistics | None = None
    """Needed where a rule needs them."""
    merge: Merge
    evaluate: Evaluate
    evaluate_corrupted: EvaluateCorrupted

    @property
    def name(self) -> str:
        return self.suite

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(self.download)

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The parameters as plain dicts and lists, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)

    def task(self, name: str) -> Miniature | ImageFolder:
        """Where a task's images come from. Raises InputError for an unknown task."""
        if name not in self.download:
            raise InputError(f"task {name!r}: unknown; known are {', '.join(self.download)}")
        return self.download[name]


def load_params(root: Path = Path()) -> Suite:
    """The active suite. Raises InputError listing every fault of params.yaml."""
    path = root / PARAMS_YAML
    if not path.is_file():
        raise InputError(f"{path}: no such file; choose a suite with `adamerge suite use mini`")
    return load_suite(path)


def load_suite(path: Path) -> Suite:
    """Read and check a suite's file. Raises InputError listing every fault."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({error}); mend the file") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no sections; start from suites/mini.yaml")
    suite, faults = None, []
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        faults = _faults(error)
    faults += _contradictions(content)
    if suite is None or faults:
        raise InputError.listing(str(path), faults)
    return suite


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """What one section names and another lacks; sections of a wrong form are passed over."""
    corrupt, evaluated = _section(content, "corrupt"), _section(content, "evaluate_corrupted")
    tasks, made = _list(corrupt, "tasks"), _list(corrupt, "corruptions")
    faults = _unknown("corrupt.tasks", tasks, _section(content, "download"))
    chosen = _list(evaluated, "corruptions")
    faults += _unknown("evaluate_corrupted.corruptions", chosen, ["clean", *made])
    severity, severities = evaluated.get("severity"), _list(corrupt, "severities")
    if severities and severity not in severities:
        listed = ", ".join(map(str, severities))
        faults.append(f"evaluate_corrupted.severity = {severity}: corrupt makes only {listed}")
    seeds = _list(content, "seeds")
    if len(set(map(str, seeds))) < len(seeds):
        faults.append(f"seeds = {seeds}: each must stand once")
    return faults + _without_statistics(content)


def _without_statistics(content: Mapping[str, Any]) -> list[str]:
    """The methods that need statistics, where no section says of what."""
    if "statistics" in content:
        return []
    needs = {name: merge_rules()[name].needs for name in merge_rules()}
    return [
        f"statistics: is missing, and merge.{name} needs {needs[name]}; add it, for example "
        "{images: 100, split: val, fisher_probes: 4}"
        for name in _section(content, "merge")
        if needs.get(name) or needs.get(str(name).removesuffix("_best"))
    ]


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(section: Mapping[str, Any], key: str) -> list[Any]:
    value = section.get(key)
    return value if isinstance(value, list) else []


def _unknown(key: str, names: Iterable[Any], known: Iterable[str]) -> list[str]:
    listed = list(known)
    return [
        f"{key}: {name!r} is unknown; known are {', '.join(listed)}"
        for name in names
        if listed and name not in listed
    ]


_UNKNOWN_METHOD = (
    "no method has this name (`adamerge methods` lists them); an adaptation has `steps`"
)


def _faults(error: ValidationError) -> list[str]:
    """One line a fault: key = value, the rule."""
    lines = []
    for fault in error.errors():
        key = ".".join(
            str(part) for part in fault["loc"] if part not in ("miniature", "image_folder")
        )
        message = fault["msg"].removeprefix("Value error, ")
        if not key:
            lines += message.splitlines()
        elif fault["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif fault["type"] == "unknown_method":
            lines.append(f"{key}: is no parameter; {_UNKNOWN_METHOD}")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"{key}: is no parameter; {_known_parameters(fault['loc'])}")
        elif fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
            lines += [f"{key}.{line}" for line in message.splitlines()]
        else:
            lines.append(f"{key} = {fault['input']!r}: {message}")
    return lines


def _known_parameters(location: tuple[Any, ...]) -> str:
    """How to mend a parameter that does not exist."""
    section, name = location[:2] if len(location) == 3 else ("", "")
    rule = merge_rules().get(str(name)) if section == "merge" else None
    if rule is None:
        return "remove it or mend its spelling"
    return f"{name} takes {', '.join(rule.parameters) or 'none'}"
