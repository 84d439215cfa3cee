"""The parameters of a suite: typed, frozen, every fault listed at once.

`params.yaml` holds the active suite; `suites/` one file each.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.registry import Source, read_source, source_faults
from tasks.suite.fields import MANY, Label, Name, Section, Seed, lines_of, listing, shown, written
from tasks.suite.method_entries import MANY_TASKS
from tasks.suite.methods import Method, methods_faults, parse_methods
from tasks.suite.sections import (
    Compute,
    Corrupt,
    Evaluate,
    Finetune,
    Model,
    Names,
    Prepare,
    Pretrain,
    Severity,
    Statistics,
    TraditionalMtl,
)
from tasks.suite.user_paths import faults_of_path
from tasks.suite.yaml_files import PARAMS_YAML, parse_yaml, read_text

SUITES = Path("suites")

RESERVED_TASKS = (
    *("average", "traditional_mtl"),
    *("method", "protocol", "seed", "corruption", "severity", "criterion"),
)
"""Names that stand in tables and paths beside those of tasks."""

_LISTS = {
    "corrupt": ("tasks", "corruptions", "severities"),
    "pretrain": ("datasets",),
    "robustness": ("corruptions",),
}
"""Those whose values each stand once, as tasks and seeds do: a value is a stage or a row."""

Entries = dict[str, Any]


class Robustness(Section):
    key = "robustness"

    corruptions: Names
    """Of those that corrupt makes, and `clean` for the images as they are."""
    severity: Severity
    methods: Entries


class Suite(Section):
    """The parameters of one suite, as its file says them, checked."""

    suite: Label
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MANY)]
    tasks: Names
    datasets: Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=MANY)]
    prepare: Prepare
    corrupt: Corrupt
    model: Model
    compute: Compute
    pretrain: Pretrain
    finetune: Finetune
    traditional_mtl: TraditionalMtl
    statistics: Statistics | None = None
    """Needed where a rule needs them."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    evaluate: Evaluate
    robustness: Robustness

    @property
    def name(self) -> str:
        return self.suite

    @property
    def size(self) -> int:
        """Pixels of a side of the prepared images."""
        return self.prepare.image_size

    @cached_property
    def merging(self) -> dict[str, Method]:
        """The methods of the tables, by name."""
        return parse_methods(self.methods)

    @cached_property
    def robust(self) -> dict[str, Method]:
        """The methods of the robustness study, by name."""
        return parse_methods(self.robustness.methods)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """How each dataset is made."""
        return {name: read_source(name, entry) for name, entry in self.datasets.items()}

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The parameters as plain dicts and lists, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)


def load_params(root: Path = Path()) -> Suite:
    """Read the active suite. Raises InputError listing every fault of params.yaml."""
    path = root / PARAMS_YAML
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such file; choose a suite with `adamerge suite use mini`")
    return load_suite(path)


def load_suite(path: Path, name: str | None = None) -> Suite:
    """Read and check a suite's file. Raises InputError listing every fault."""
    return parse_suite(read_text(path), path, name)


def parse_suite(text: str, path: Path, name: str | None = None) -> Suite:
    """Read a suite from the text of its file `path`, which must call it `name` if that is given.

    Raises InputError listing every fault.
    """
    content = parse_yaml(text, path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no sections; start from suites/mini.yaml")
    return checked(content, str(path), name)


def checked(content: Mapping[str, Any], where: str, name: str | None = None) -> Suite:
    """Check the parameters of a suite, which must be called `name` if that is given.

    Raises InputError listing every fault, after `where`.
    """
    suite, faults = None, []
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        faults = lines_of(error)
    faults += _of_a_former_format(content)
    faults += _ignored_by_dvc(content)
    faults += _contradictions(content)
    if name is not None and content.get("suite") != name:
        faults.append(
            f"suite = {shown(content.get('suite'))}: must be {name!r}, the file's name; its "
            "results would go to another suite's folder"
        )
    if suite is None or faults:
        raise listing(where, faults)
    return suite


def _of_a_former_format(content: Mapping[str, Any]) -> list[str]:
    former = [key for key in ("download", "merge", "evaluate_corrupted") if key in content]
    if not former:
        return []
    return [
        f"sections {', '.join(former)} are of a former format: docs/suites.md describes the "
        "present one, suites/mini.yaml is an example"
    ]


def _ignored_by_dvc(content: Any, where: str = "") -> list[str]:
    """Keys that DVC's run cache leaves out: another value would bring back the results of this."""
    if not isinstance(content, Mapping):
        return []
    return [
        line
        for key, value in content.items()
        for line in (
            [f"{where}{written(key)}: DVC's cache ignores keys called size and nfiles; rename it"]
            if key in ("size", "nfiles")
            else _ignored_by_dvc(value, f"{where}{written(key)}.")
        )
    ]


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """What one section names and another lacks; sections of a wrong form are passed over."""
    datasets, corrupt = _section(content, "datasets"), _section(content, "corrupt")
    robustness, tasks = _section(content, "robustness"), _list(content, "tasks")
    faults = [
        f"datasets.{written(name)}.{line}"
        for name, entry in datasets.items()
        if isinstance(entry, Mapping)
        for line in source_faults(str(name), entry) or _faults_of_files(str(name), entry)
    ]
    faults += [
        f"tasks: {name!r} is reserved; give the dataset another name"
        for name in tasks
        if name in RESERVED_TASKS
    ]
    faults += _unknown("tasks", tasks, datasets, "an entry of datasets")
    faults += _twice("seeds", _list(content, "seeds")) + _twice("tasks", tasks)
    for section, keys in _LISTS.items():
        for key in keys:
            faults += _twice(f"{section}.{key}", _list(_section(content, section), key))
    faults += _unknown("corrupt.tasks", _list(corrupt, "tasks"), tasks, "one of tasks")
    pretrained_on = _list(_section(content, "pretrain"), "datasets")
    faults += _unknown("pretrain.datasets", pretrained_on, datasets, "an entry of datasets")
    made = ["clean", *_list(corrupt, "corruptions")]
    chosen = _list(robustness, "corruptions")
    faults += _unknown("robustness.corruptions", chosen, made, "clean or one of corrupt")
    severity, severities = robustness.get("severity"), _list(corrupt, "severities")
    if severities and severity not in severities:
        known = ", ".join(map(str, severities))
        faults.append(f"robustness.severity = {shown(severity)}: corrupt makes only {known}")
    faults += _named_as_a_parameter(_section(content, "methods"), tasks)
    return faults + _of_methods(content, robustness, pretrained_on, datasets)


def _named_as_a_parameter(methods: Mapping[str, Any], tasks: list[Any]) -> list[str]:
    """Tasks that share a column of a method's table of choices with the parameter chosen."""
    return [
        f"tasks: {key!r} is the parameter that methods.{written(name)} chooses, a column beside "
        "the tasks'; give the dataset another name"
        for name, entry in methods.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("choose"), Mapping)
        for key in entry["choose"]
        if key != "by" and key in tasks
    ]


def _of_methods(
    content: Mapping[str, Any],
    robustness: Mapping[str, Any],
    pretrained_on: Iterable[Any],
    datasets: Mapping[str, Any],
) -> list[str]:
    merged = len(_list(content, "tasks")) or MANY_TASKS
    corrupted = len(_list(_section(content, "corrupt"), "tasks")) or MANY_TASKS
    faults = methods_faults(content.get("methods", {}), "methods", merged)
    entries = robustness.get("methods", {})
    faults += methods_faults(entries, "robustness.methods", corrupted, may_choose=False)
    faults += _without_pretrain(pretrained_on, datasets)
    if faults or content.get("statistics") is not None:
        return faults
    return [
        f"statistics: is missing, and {where}.{name} needs {', '.join(method.needs)}; add it, "
        "for example {images: 100, split: val, fisher_probes: 4}"
        for where, section in (("methods", content), ("robustness.methods", robustness))
        for name, method in parse_methods(_section(section, "methods")).items()
        if method.needs
    ]


def _without_pretrain(names: Iterable[Any], datasets: Mapping[str, Any]) -> list[str]:
    """Datasets that pretraining names and that set no images aside for it."""
    return [
        f"pretrain.datasets: {name} has no split pretrain; let datasets.{name} set one aside, or "
        "remove it here"
        for name in names
        if isinstance(name, str)
        and isinstance(datasets.get(name), Mapping)
        and not source_faults(name, datasets[name])
        and "pretrain" not in read_source(name, datasets[name]).splits()
    ]


def _faults_of_files(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Say which files and folders of a source dvc.yaml cannot name, or are the project's own."""
    return [
        f"path = {shown(path.as_posix())}: {rule}"
        for path in read_source(name, entry).files()
        for rule in faults_of_path(path)
    ]


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section, empty where it has a wrong form or is too long, which is a fault of its own."""
    value = content.get(key)
    return value if isinstance(value, Mapping) and len(value) <= MANY else {}


def _list(section: Mapping[str, Any], key: str) -> list[Any]:
    value = section.get(key)
    return value if isinstance(value, list) and len(value) <= MANY else []


def _unknown(key: str, names: Iterable[Any], known: Iterable[Any], rule: str) -> list[str]:
    listed = list(known)
    return [
        f"{key}: {shown(name)} must be {rule}: {', '.join(map(written, listed))}"
        for name in names
        if listed and name not in listed
    ]


def _twice(key: str, values: list[Any]) -> list[str]:
    if len(set(map(str, values))) == len(values):
        return []
    return [f"{key} = {shown(values)}: each must stand once"]
