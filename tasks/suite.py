"""The parameters of a suite: typed, frozen, every fault listed at once.

`params.yaml` holds the active suite; `suites/` one file each. Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adamerge_core.errors import InputError

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


class WeightAveraging(_Section):
    pass


class TaskArithmetic(_Section):
    scaling: Positive


class TaskArithmeticBest(_Section):
    scalings: Scalings


class TiesMerging(_Section):
    scaling: Positive
    keep: Share


class TiesMergingBest(_Section):
    scalings: Scalings
    keep: Share


class Adaptation(_Section):
    steps: Count
    images_per_task: Count
    learning_rate: Positive
    start: Coefficient


class AdaptationPlusPlus(Adaptation):
    keep: Share


class Merge(_Section):
    """The methods to run; one that is left out is not run."""

    weight_averaging: WeightAveraging | None = None
    task_arithmetic: TaskArithmetic
    task_arithmetic_best: TaskArithmeticBest | None = None
    ties_merging: TiesMerging | None = None
    ties_merging_best: TiesMergingBest | None = None
    task_wise_adamerging: Adaptation | None = None
    task_wise_adamerging_pp: AdaptationPlusPlus | None = None
    layer_wise_adamerging: Adaptation | None = None
    layer_wise_adamerging_pp: AdaptationPlusPlus | None = None

    def __getitem__(self, method: str) -> Any:
        """The parameters of a method. Raises InputError if it is unknown or not of this suite."""
        params = getattr(self, method, None) if method in type(self).model_fields else None
        if params is None:
            known = ", ".join(name for name, value in self if value is not None)
            raise InputError(f"method {method!r}: not one of this suite's; known are {known}")
        return params


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
    return faults


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


def _faults(error: ValidationError) -> list[str]:
    """One line a fault: key = value, the rule."""
    lines = []
    for fault in error.errors():
        key = ".".join(
            str(part) for part in fault["loc"] if part not in ("miniature", "image_folder")
        )
        if not key:
            lines += fault["msg"].removeprefix("Value error, ").splitlines()
        elif fault["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"{key}: is no parameter; remove it or mend its spelling")
        else:
            lines.append(f"{key} = {fault['input']!r}: {fault['msg']}")
    return lines
