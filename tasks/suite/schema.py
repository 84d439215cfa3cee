"""The parameters of a suite: typed, frozen, every fault listed at once.

`params.yaml` holds the active suite; `suites/` one file each.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_files import model_pin_path, tag_pin
from adamerge_core.vision.datasets.registry import Source, read_source
from tasks.suite.contradictions import contradictions
from tasks.suite.experiments.experiment import Experiment
from tasks.suite.experiments.sections import experiments_of
from tasks.suite.fields import (
    MANY,
    REFERENCES,
    Label,
    Name,
    Section,
    Seed,
    lines_of,
    listing,
    shown,
    written,
)
from tasks.suite.methods import Method, parse_methods
from tasks.suite.sections import (
    Checkpoints,
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
from tasks.suite.tolerances import Tolerances
from tasks.suite.yaml_files import PARAMS_YAML, parse_yaml, read_text

SUITES = Path("suites")

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
    head: Literal["shared", "average"] | None = None
    """One head for all tasks: shared, which imported classifiers must all have, or the average of
    theirs; left out, each task has its own."""
    pretrain: Pretrain | None = None
    """Of the text tower; needed where the model's weights have none."""
    checkpoints: Checkpoints | None = None
    """The tasks whose models are imported; the others are fine-tuned here."""
    finetune: Finetune | None = None
    """Needed where something is fine-tuned."""
    traditional_mtl: TraditionalMtl | None = None
    """Left out, the tables have no such reference."""
    statistics: Statistics | None = None
    """Needed where a rule needs them."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    evaluate: Evaluate
    registry: Tolerances
    robustness: Robustness
    experiments: Annotated[dict[Name, Entries], Field(max_length=MANY)] | None = None
    """Those of tasks.suite.experiments that run beside; left out, none does."""

    @property
    def name(self) -> str:
        return self.suite

    @property
    def size(self) -> int:
        """Pixels of a side of the prepared images."""
        return self.prepare.image_size

    @property
    def imported(self) -> dict[str, dict[str, str]]:
        """Where the fine-tuned models that are not made here come from, by task."""
        return self.checkpoints.finetuned if self.checkpoints else {}

    @property
    def model_files(self) -> dict[str, Path]:
        """The user's files and folders that models and heads are read from, by their keys."""
        entries = {"model.weights": self.model.weights}
        for kind in ("finetuned", "heads"):
            given = getattr(self.checkpoints, kind) if self.checkpoints else {}
            entries |= {f"checkpoints.{kind}.{task}": entry for task, entry in given.items()}
        return {key: Path(entry["file"]) for key, entry in entries.items() if "file" in entry}

    @property
    def model_pins(self) -> dict[str, Path]:
        """The pins of the models that are read from the hub, by their keys."""
        entries = {"model.weights": self.model.weights}
        entries |= {f"checkpoints.finetuned.{task}": e for task, e in self.imported.items()}
        hubs = {key: entry["hub"] for key, entry in entries.items() if "hub" in entry}
        if tag := self.model.weights.get("tag"):
            hubs["model.weights"] = tag_pin(self.model.architecture, tag)
        return {key: model_pin_path(name) for key, name in hubs.items()}

    @property
    def references(self) -> tuple[str, ...]:
        """The rows of its tables that merge nothing."""
        left_out = () if self.traditional_mtl else ("traditional_mtl",)
        return tuple(name for name in REFERENCES if name not in left_out)

    @cached_property
    def merging(self) -> dict[str, Method]:
        """The methods of the tables, by name."""
        return parse_methods(self.methods)

    @cached_property
    def robust(self) -> dict[str, Method]:
        """The methods of the robustness study, by name."""
        return parse_methods(self.robustness.methods)

    @cached_property
    def studied(self) -> dict[str, Experiment]:
        """The settings of its experiments, by name."""
        return experiments_of({"experiments": self.experiments})

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
    faults += contradictions(content)
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
