"""dvc.lock: what each stage last read and wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite.yaml_files import PARAMS_YAML, load_yaml, parse_yaml

DVC_LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Locked:
    """A stage's last run: md5s by path, values of parameters by dotted key."""

    deps: Mapping[str, str]
    params: Mapping[str, Any]
    outs: Mapping[str, str]


def read_lock() -> dict[str, Locked]:
    """Read the stages that have run, by name; empty where there is no dvc.lock or it is torn."""
    try:
        return _stages(load_yaml(DVC_LOCK))
    except (OSError, InputError):
        return {}


def parse_lock(text: str) -> dict[str, Locked]:
    """Read the text of a dvc.lock, as of an earlier commit; empty where it is none."""
    try:
        return _stages(parse_yaml(text, DVC_LOCK))
    except InputError:
        return {}


def _stages(content: Any) -> dict[str, Locked]:
    try:
        return {name: _locked(entry) for name, entry in content["stages"].items()}
    except (AttributeError, KeyError, TypeError):
        return {}


def _locked(entry: Mapping[str, Any]) -> Locked:
    deps, outs = ({f["path"]: f["md5"] for f in entry.get(key, [])} for key in ("deps", "outs"))
    return Locked(deps, entry.get("params", {}).get(str(PARAMS_YAML), {}), outs)
