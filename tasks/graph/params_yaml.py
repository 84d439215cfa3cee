"""params.yaml, the parameters of the active suite, as plain values."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite.yaml_files import PARAMS_YAML, load_yaml


def read_params() -> dict[str, Any]:
    """Read all of params.yaml, unchecked; empty where there is none.

    Raises InputError where it is no YAML or holds no sections.
    """
    content = load_yaml(PARAMS_YAML) if os.path.lexists(PARAMS_YAML) else {}
    if not isinstance(content or {}, Mapping):
        raise InputError(f"{PARAMS_YAML}: holds no sections; start from suites/mini.yaml")
    return dict(content or {})


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
