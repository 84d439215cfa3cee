"""YAML files as plain values, and where the active suite's parameters are."""

from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError

PARAMS_YAML = Path("params.yaml")

# libyaml's is ten times as fast, and every stage process reads params.yaml and dvc.yaml
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: Path) -> str:
    """Read a YAML file's text. Raises InputError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error


def parse_yaml(text: str, path: Path) -> Any:
    """Parse the text of the file `path`. Raises InputError where it is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: the date 2020-13-45
        raise _unreadable(path, error) from error


def load_yaml(path: Path) -> Any:
    """Read a YAML file. Raises InputError where it is no YAML, OSError where it cannot be read."""
    return parse_yaml(read_text(path), path)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not readable as YAML ({error}); mend the file")
