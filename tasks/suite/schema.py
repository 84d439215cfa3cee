"""The parameters of a suite: typed, frozen, every fault listed at once.

`params.yaml` holds the active suite; `suites/` one file each. Nothing here imports torch.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from adamerge_core.errors import InputError
from tasks.suite.fields import Count, Name, Positive, Section, Seed, Share, one_of
from tasks.suite.methods import Adaptation, Merge
from tasks.suite.rules import merge_rules
from tasks.suite.source_tables import architectures, corruptions, miniatures, supply

PARAMS_YAML = Path("params.yaml")
SUITES = Path("suites")


class Compute(Section):
    device: Literal["cpu", "cuda"]
    threads: Count
    """Per stage process."""
    micro_batch: Count
    """Images per forward and backward pass of an adaptation."""
    precision: Literal["float32", "bfloat16", "bfloat16_backward", "auto"] = "auto"
    """Of these passes; see adamerge_core.adamerging.Engine."""


class Miniature(Section):
    """Images that adamerge_core.vision.miniature makes; counts a split."""

    source: Literal["miniature"]
    seed: Seed
    pretrain: Count
    train: Count
    val: Count
    test: Count


def _template(text: str) -> str:
    if text.count("{}") != 1 or re.search("[{}]", text.replace("{}", "")):
        raise ValueError("must hold {} once, for the class name, and no other brace")
    return text


class ImageFolder(Section):
    """A user's own images: <path>/<split>/<class>/<file>, with splits train and test."""

    source: Literal["image_folder"]
    path: str
    templates: Annotated[tuple[Annotated[str, AfterValidator(_template)], ...], Field(min_length=1)]
    """Prompts of the zero-shot head, with {} for the class name."""
    seed: Seed = 0
    val_fraction: Share = 0.1
    """Of the training images, where there is no folder `val`."""
    pretrain_per_class: Count = 20
    """Training images set aside to train the text tower, where there is no folder `pretrain`."""


class Prepare(Section):
    image_size: Count


class Corrupt(Section):
    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]
    corruptions: Annotated[tuple[Annotated[str, one_of(corruptions)], ...], Field(min_length=1)]
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)]
    images: Count
    seed: Seed


class Model(Section):
    architecture: Annotated[str, one_of(architectures)]


class Pretrain(Section):
    steps: Count
    captions_per_step: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    seed: Seed


class Finetune(Section):
    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive


class TraditionalMtl(Section):
    steps: Count


class Statistics(Section):
    """What merge rules that need data compute from unlabeled images, once a task."""

    images: Count
    """Of each task, drawn with the seed; all where a task has fewer."""
    split: Literal["train", "val", "test"]
    fisher_probes: Count
    """See adamerge_core.statistics.fisher_diagonal."""


class Evaluate(Section):
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]
    trajectory_images: Count
    trajectory_points: Annotated[int, Field(ge=2)]


class EvaluateCorrupted(Section):
    corruptions: Annotated[tuple[Name, ...], Field(min_length=1)]
    severity: Annotated[int, Field(ge=1, le=5)]
    adaptation: Adaptation


class Suite(Section):
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


def load_suite(path: Path, name: str | None = None) -> Suite:
    """Read and check a suite's file. Raises InputError listing every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not readable as YAML ({error}); mend the file") from error
    return parse_suite(text, path, name)


def parse_suite(text: str, path: Path, name: str | None = None) -> Suite:
    """A suite from the text of its file `path`, which must call it `name` if that is given.

    Raises InputError listing every fault.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML ({error}); mend the file") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no sections; start from suites/mini.yaml")
    suite, faults = None, []
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        faults = _faults(error)
    faults += _contradictions(content)
    if name is not None and content.get("suite") != name:
        faults.append(
            f"suite = {content.get('suite')!r}: must be {name!r}, the file's name; its results "
            "would go to another suite's folder"
        )
    if suite is None or faults:
        raise InputError.listing(str(path), faults)
    return suite


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """What one section names and another lacks; sections of a wrong form are passed over."""
    corrupt, evaluated = _section(content, "corrupt"), _section(content, "evaluate_corrupted")
    tasks, made = _list(corrupt, "tasks"), _list(corrupt, "corruptions")
    faults = _beyond_the_miniatures(_section(content, "download"))
    faults += _unknown("corrupt.tasks", tasks, _section(content, "download"))
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


def _beyond_the_miniatures(download: Mapping[str, Any]) -> list[str]:
    """Tasks that are to be miniatures and are none, and more images than there are of one."""
    faults = []
    for task, source in download.items():
        if not isinstance(source, Mapping) or source.get("source") != "miniature":
            continue
        if task not in miniatures():
            known = ", ".join(miniatures())
            faults.append(f"download.{task}: there is no such miniature; there are {known}")
        faults += [
            f"download.{task}.{split} = {source[split]}: there are only {count} images"
            for split, count in supply(str(task)).items()
            if isinstance(source.get(split), int) and source[split] > count
        ]
    return faults


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
    "no method has this name (`adamerge methods` lists them); an adaptation has `steps` or `preset`"
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
