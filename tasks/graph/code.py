"""Which of the project's source files a stage runs: the code among its dependencies."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from adamerge_core.errors import InputError

_PACKAGES = ("adamerge_core", "tasks")

PLUMBING = ("tasks/graph/", "tasks/running/", "tasks/suite/", "tasks/tracking/")
"""Folders that wire, check and record stages and compute nothing: no stage depends on them."""


def sources(*modules: str, root: Path = Path()) -> list[str]:
    """List the files that `modules` import, directly or not, themselves included; sorted.

    Follows import statements anywhere in a file, also inside functions, but not those for type
    checkers alone. An `__init__.py` is never among the files, for it only imports: a name that is
    imported from a package leads to the module that defines it. Files of PLUMBING are left out.
    Paths are relative to `root`, the project's root. Raises InputError for a name of a package that
    its `__init__.py` does not import, which would hide a dependency.
    """
    found: set[str] = set()
    waiting = list(modules)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen or module.split(".")[0] not in _PACKAGES:
            continue
        seen.add(module)
        path = _file_of(module, root)
        if path.startswith(PLUMBING):
            continue
        if not path.endswith("/__init__.py"):
            found.add(path)
        waiting += _imported(path, root)
    return sorted(found)


def _file_of(module: str, root: Path) -> str:
    """The file of a module or, for a package, its `__init__.py`."""
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        if (root / path).is_file():
            return path
    raise InputError(f"module {module}: no such file below {root.resolve()}")


@cache
def _imported(path: str, root: Path) -> frozenset[str]:
    """The project's modules that a file imports."""
    modules: set[str] = set()
    for node in _running(ast.parse((root / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = _absolute(node, path)
            if package.split(".")[0] in _PACKAGES:
                modules.update(_resolved(package, alias.name, root) for alias in node.names)
    return frozenset(modules)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module or ""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    above = parts[: len(parts) - node.level + path.endswith("/__init__.py")]
    return ".".join([*above, *([node.module] if node.module else [])])


def _resolved(package: str, name: str, root: Path) -> str:
    """The module behind `from package import name`."""
    stem = root / package.replace(".", "/")
    if not stem.is_dir():
        return package
    if (stem / f"{name}.py").is_file() or (stem / name / "__init__.py").is_file():
        return f"{package}.{name}"
    exported = _exports(package, root)
    if name not in exported:
        raise InputError(
            f"from {package} import {name}: {package}/__init__.py does not import it; import it "
            "from the module that defines it, or what runs it would not be known"
        )
    return exported[name]


@cache
def _exports(package: str, root: Path) -> dict[str, str]:
    """By name the modules that a package's `__init__.py` imports its names from."""
    path = f"{package.replace('.', '/')}/__init__.py"
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: _resolved(_absolute(node, path), alias.name, root)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        if _absolute(node, path).split(".")[0] in _PACKAGES
        for alias in node.names
    }
