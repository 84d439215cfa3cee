"""dvc.yaml as adamerge writes and reads it: plain stages and stages with a `matrix` of lists."""

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError
from tasks.suite.yaml_files import PARAMS_YAML, load_yaml

DVC_YAML = Path("dvc.yaml")

_LISTS = ("deps", "params", "outs", "metrics", "plots")

_MOST_STAGES = 100_000  # of a template

# what every YAML reads as text without quotes: 1.1 (ours) takes no and 0123 for other things,
# 1.2 (DVC's) 1e3
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z_][\w./@${} -]*", re.I)


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

    @property
    def phase(self) -> str:
        """What it runs, the last part of the module: `merge` of all merges."""
        return phase_of(self.cmd)

    def expand(self) -> list["Stage"]:
        """Make the stages of a template, named as DVC names them: `finetune@mini_clip-mnist-0`."""
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


def phase_of(cmd: str) -> str:
    """Name what a stage's command runs: the last part of its module, else its first word."""
    words = cmd.split()
    return words[2].split(".")[-1] if words[:2] == ["python", "-m"] else words[0]


def is_code(dep: str) -> bool:
    """Tell whether a dependency is what a stage runs: neither a file that a stage writes, nor
    images of a user, which may lie anywhere.
    """
    return dep.endswith(".py") or dep.startswith("tasks/")  # there are the report's templates


def read(path: Path = DVC_YAML) -> dict[str, Stage]:
    """Read the stages of a dvc.yaml by name, matrices expanded.

    Reads what adamerge writes, without importing DVC (which costs a second). Raises InputError
    where the file is missing, is no YAML, holds no stage, or uses DVC's other templates (foreach).
    """
    if not os.path.lexists(path):
        raise InputError(
            f"{path} is not in {Path.cwd()}: run this in the project's root, "
            "or write the file with `adamerge suite use NAME`"
        )
    try:
        content = load_yaml(path)
    except InputError as error:
        raise InputError(f"{error}\nor write it anew: adamerge suite use NAME") from None
    named = content.get("stages") if isinstance(content, Mapping) else content
    if not isinstance(named, Mapping) or not named:
        raise InputError(f"{path}: holds no stages; write it anew: adamerge suite use NAME")
    faults = [fault for name, body in named.items() for fault in _faults(name, body)]
    if faults:
        raise InputError.listing(str(path), faults, shown=20)
    templates = [_parse(name, body) for name, body in named.items()]
    return {stage.name: stage for template in templates for stage in template.expand()}


def _faults(name: str, body: Any) -> list[str]:
    """List where a stage is not of a form that is read here, a line each."""
    if not isinstance(body, Mapping) or "cmd" not in body:
        return [f"stage {name} has no cmd: write it with matrix, not foreach, or as single stages"]
    faults = []
    if not isinstance(body["cmd"], str) and not _are_texts(body["cmd"]):
        faults.append(f"stage {name}: cmd must be text, or a list of texts")
    for key in _LISTS:
        entries = body.get(key) or []
        if not isinstance(entries, list) or not all(_is_entry(key, each) for each in entries):
            faults.append(f"stage {name}: {key} must be a list of texts, or of {{text: options}}")
    matrix = body.get("matrix") or {}
    if not isinstance(matrix, Mapping) or not all(isinstance(v, list) for v in matrix.values()):
        faults.append(f"stage {name}: matrix must have a list of values an axis")
    elif math.prod(map(len, matrix.values())) > _MOST_STAGES:
        faults.append(f"stage {name}: matrix must make at most {_MOST_STAGES} stages")
    return faults


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_entry(key: str, entry: Any) -> bool:
    if isinstance(entry, Mapping) and key == "params":  # keys of each file
        return all(keys is None or _are_texts(keys) for keys in entry.values())
    return isinstance(entry, str) or (isinstance(entry, Mapping) and len(entry) > 0)


def _parse(name: str, body: Mapping[str, Any]) -> Stage:
    lists = {key: _paths(body.get(key) or []) for key in ("deps", "outs", "metrics", "plots")}
    cmd = body["cmd"]
    return Stage(
        name,
        cmd if isinstance(cmd, str) else "\n".join(cmd),
        params=_params(body.get("params") or []),
        matrix=body.get("matrix") or {},
        **lists,
    )


def _paths(entries: Sequence[str | Mapping[str, Any]]) -> tuple[str, ...]:
    """An entry is a path, or one path with options."""
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)


def _params(entries: Sequence[str | Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys of params.yaml; those of other parameter files are not adamerge's."""
    keys: list[str] = []
    for entry in entries:
        keys += [entry] if isinstance(entry, str) else entry.get(str(PARAMS_YAML)) or []
    return tuple(keys)


def render(templates: Iterable[Stage], heading: str, plots: Sequence[Path] = ()) -> str:
    """Write a dvc.yaml; `heading` becomes its comment, `plots` its top-level plots."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in heading.splitlines())
    content: dict[str, Any] = {"stages": {each.name: _body(each) for each in templates}}
    if plots:
        content["plots"] = [path.as_posix() for path in plots]
    return f"{comment}\n{yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10**6)}"


def _body(template: Stage) -> dict[str, Any]:
    matrix = {axis: _Flow(values) for axis, values in template.matrix.items()}
    lists = {key: list(getattr(template, key)) for key in _LISTS if getattr(template, key)}
    return {**({"matrix": matrix} if matrix else {}), "cmd": template.cmd, **lists}


class _Flow(list[Any]):
    """A list on one line."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML reader takes for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) and text == text.strip() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _flow(dumper: yaml.SafeDumper, values: _Flow) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Flow, _flow)
