"""Tables that stand in source files of the core, read without running them.

Importing them would take torch, or seconds; a suite is checked against their keys.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import adamerge_core

CORE = Path(adamerge_core.__file__).parent
_VISION = CORE / "vision"


@cache
def architectures() -> tuple[str, ...]:
    """The CLIP models that can be made."""
    return tuple(name for name, _ in entries(_VISION / "encoders.py", "ARCHITECTURES"))


@cache
def corruptions() -> tuple[str, ...]:
    """The corruptions of images."""
    return tuple(name for name, _ in entries(_VISION / "corruptions.py", "CORRUPTIONS"))


@cache
def miniatures() -> tuple[str, ...]:
    """The miniature tasks."""
    return tuple(name for name, _ in entries(_VISION / "miniature" / "__init__.py", "_TASKS"))


@cache
def supply(miniature: str) -> dict[str, int]:
    """By split how many images there are of a miniature task; empty where they are drawn."""
    if miniature != "mnist":
        return {}
    rows = entries(_VISION / "miniature" / "mnist.py", "SUPPLY")
    return {split: ast.literal_eval(count) for split, count in rows}


def entries(path: Path, name: str) -> Iterator[tuple[Any, ast.expr]]:
    """Keys and values of the dict that a module assigns to a name, which must stand there as one:
    plain keys between braces.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    yield ast.literal_eval(key or ast.Constant(None)), value
