"""dvc.yaml as adamerge writes and reads it: plain stages and stages with a `matrix` of literal
lists.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError

DVC_YAML = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
PARAMS_YAML = Path("params.yaml")

_PLAIN = re.compile(r"[\w./@${}-]+")

# libyaml's is ten times as fast, and every stage process reads dvc.yaml
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Stage:
    """One stage, or a template of stages: then strings hold `${item.<axis>}` and `matrix` has the
    axes.

    Paths are relative to the project's root; `params` are dotted keys of params.yaml.
    """

    name: str
    cmd: str
    deps: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    matrix: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that the stage writes."""
        return self.outs + self.metrics + self.plots

    def expand(self) -> list["Stage"]:
        """The stages of a template, named as DVC names them: `finetune@mnist-0`."""
        if not self.matrix:
            return [self]
        return [self._filled(values) for values in itertools.product(*self.matrix.values())]

    def _filled(self, values: Sequence[Any]) -> "Stage":
        items = {f"${{item.{axis}}}": str(v) for axis, v in zip(self.matrix, values, strict=True)}

        def fill(text: str) -> str:
            for placeholder, value in items.items():
                text = text.replace(placeholder, value)
            return text

        def fill_all(texts: Iterable[str]) -> tuple[str, ...]:
            return tuple(map(fill, texts))

        return Stage(
            f"{self.name}@{'-'.join(items.values())}",
            fill(self.cmd),
            deps=fill_all(self.deps),
            params=fill_all(self.params),
            outs=fill_all(self.outs),
            metrics=fill_all(self.metrics),
            plots=fill_all(self.plots),
        )


def is_code(dep: str) -> bool:
    """Whether a dependency is what a stage runs: not a file that a stage writes, and not the images
    of a user, which may lie anywhere.
    """
    return dep.endswith(".py") or dep.startswith("tasks/")  # there are the report's templates


def load_yaml(path: Path) -> Any:
    """Raises yaml.YAMLError."""
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def read(path: Path = DVC_YAML) -> dict[str, Stage]:
    """The stages of a dvc.yaml by name, matrices expanded.

    Reads what adamerge writes, without importing DVC (which costs a second). Raises InputError
    where the file is missing, is no YAML, or uses DVC's other templates (foreach, vars).
    """
    try:
        content = load_yaml(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} is not in {Path.cwd()}: run this in the project's root, "
            "or write the file with `adamerge suite use NAME`"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(
            f"{path} is no YAML: {error}\nwrite it anew: adamerge suite use NAME"
        ) from None
    named = (content or {}).get("stages") or {}
    faults = [
        f"stage {name} uses foreach: write it with matrix, or as single stages"
        for name, body in named.items()
        if "cmd" not in body
    ]
    if faults:
        raise InputError.listing(str(path), faults)
    templates = [_parse(name, body) for name, body in named.items()]
    return {stage.name: stage for template in templates for stage in template.expand()}


def _parse(name: str, body: Mapping[str, Any]) -> Stage:
    lists = {key: _paths(body.get(key, [])) for key in ("deps", "outs", "metrics", "plots")}
    cmd = body["cmd"]
    return Stage(
        name,
        cmd if isinstance(cmd, str) else "\n".join(cmd),
        params=_params(body.get("params", [])),
        matrix=body.get("matrix", {}),
        **lists,
    )


def _paths(entries: Sequence[str | Mapping[str, Any]]) -> tuple[str, ...]:
    """An entry is a path, or one path with options."""
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)


def _params(entries: Sequence[str | Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys of params.yaml; those of other parameter files are not adamerge's."""
    keys: list[str] = []
    for entry in entries:
        keys += [entry] if isinstance(entry, str) else entry.get(str(PARAMS_YAML), [])
    return tuple(keys)


def read_params() -> dict[str, Any]:
    """All of params.yaml, unchecked; empty where there is none."""
    if not PARAMS_YAML.is_file():
        return {}
    return dict(load_yaml(PARAMS_YAML) or {})


def params_of(stage: Stage) -> dict[str, Any]:
    """The values of the parameters that a stage depends on, by dotted key."""
    values = read_params()
    return {key: _look_up(values, key) for key in stage.params}


def suite_name() -> str:
    """The name that params.yaml gives its suite."""
    return str(read_params().get("suite", "default"))


def _look_up(values: Any, key: str) -> Any:
    """None where there is no such key."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def render(templates: Iterable[Stage], heading: str, plots: Sequence[Path] = ()) -> str:
    """The text of a dvc.yaml; `heading` becomes its comment, `plots` its top-level plots."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in heading.splitlines())
    bodies = "\n".join(_render(template) for template in templates)
    pictures = "".join(f"  - {path.as_posix()}\n" for path in plots)
    return f"{comment}\nstages:\n{bodies}" + (f"\nplots:\n{pictures}" if plots else "")


def _render(template: Stage) -> str:
    lines = [f"  {template.name}:"]
    if template.matrix:
        lines.append("    matrix:")
        lines += [f"      {axis}: {_flow(values)}" for axis, values in template.matrix.items()]
    lines.append(f"    cmd: {template.cmd}")
    for key in ("deps", "params", "outs", "metrics", "plots"):
        if entries := getattr(template, key):
            lines += [f"    {key}:", *(f"      - {_scalar(entry)}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A path as YAML takes it; a user's folder may have any name."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _flow(values: Sequence[Any]) -> str:
    return "[" + ", ".join(str(value) for value in values) + "]"


@dataclass(frozen=True)
class Locked:
    """A stage's last run in dvc.lock: md5s by path, values of parameters by dotted key."""

    deps: Mapping[str, str]
    params: Mapping[str, Any]
    outs: Mapping[str, str]


def read_lock() -> dict[str, Locked]:
    """The stages that have run, by name; empty where there is no dvc.lock or it is torn."""
    try:
        content = load_yaml(DVC_LOCK)
        return {name: _locked(entry) for name, entry in content["stages"].items()}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        return {}


def _locked(entry: Mapping[str, Any]) -> Locked:
    deps, outs = ({f["path"]: f["md5"] for f in entry.get(key, [])} for key in ("deps", "outs"))
    return Locked(deps, entry.get("params", {}).get(str(PARAMS_YAML), {}), outs)
