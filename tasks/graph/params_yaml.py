"""params.yaml, the parameters of the active suite, as plain values."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError

PARAMS_YAML = Path("params.yaml")

# libyaml's is ten times as fast, and every stage process reads params.yaml and dvc.yaml
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(path: Path) -> Any:
    """Read a YAML file. Raises yaml.YAMLError."""
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def read_params() -> dict[str, Any]:
    """Read all of params.yaml, unchecked; empty where there is none.

    Raises InputError where it is no YAML.
    """
    if not PARAMS_YAML.is_file():
        return {}
    try:
        return dict(load_yaml(PARAMS_YAML) or {})
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise InputError(f"{PARAMS_YAML}: not readable as YAML ({error}); mend the file") from error


def values(keys: Iterable[str]) -> dict[str, Any]:
    """Look up dotted keys in params.yaml; None where there is no such key."""
    params = read_params()
    return {key: _look_up(params, key) for key in keys}


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Put values by dotted key into nested dicts."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *above, last = key.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def suite_name() -> str:
    """Read the name that params.yaml gives its suite."""
    return str(read_params().get("suite", "default"))


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
