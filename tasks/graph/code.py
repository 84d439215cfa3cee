"""Which of the project's source files a stage runs: the code among its dependencies."""

import ast
from functools import cache
from pathlib import Path

_PACKAGES = ("adamerge_core", "tasks")

# how a stage is wired and recorded, not what it computes: a change here must not rerun every stage
PLUMBING = frozenset(
    {
        "adamerge_core/__init__.py",
        "adamerge_core/errors.py",
        "adamerge_core/atomic.py",
        "tasks/__init__.py",
        "tasks/graph/code.py",
        "tasks/tracking/database.py",
        "tasks/graph/dvc_yaml.py",
        "tasks/running/environment.py",
        "tasks/running/failures.py",
        "tasks/graph/paths.py",
        "tasks/tracking/lineage.py",
        "tasks/graph/build.py",
        "tasks/running/hashes.py",
        "tasks/tracking/ingest.py",
        "tasks/running/journal.py",
        "tasks/suite/methods.py",
        "tasks/suite/rules.py",
        "tasks/suite/fields.py",
        "tasks/suite/source_tables.py",
        "tasks/running/stage.py",
        "tasks/suite/schema.py",
        "tasks/tracking/__init__.py",
        "tasks/tracking/models.py",
        "tasks/tracking/runs.py",
        "tasks/tracking/store.py",
    }
)


# its modules are imported by name at run time, where no import statement tells
_DYNAMIC = {"adamerge_core.vision.miniature"}


def sources(module: str, root: Path = Path(".")) -> list[str]:
    """The files of the project that `module` imports, directly or not, itself included; sorted.

    Follows import statements anywhere in a file, also inside functions; PLUMBING is left out.
    Paths are relative to `root`, the project's root.
    """
    found: set[str] = set()
    waiting = _files_of(module, root)
    while waiting:
        path = waiting.pop()
        if path not in found and path not in PLUMBING:
            found.add(path)
            waiting += [file for name in _imports(root / path) for file in _files_of(name, root)]
    return sorted(found)


def _files_of(module: str, root: Path) -> list[str]:
    """The file of a module and those of the packages around it, which Python runs first."""
    parts = module.split(".")
    if parts[0] not in _PACKAGES:
        return []
    files = ["/".join(parts[:n]) + "/__init__.py" for n in range(1, len(parts) + 1)]
    files.append("/".join(parts) + ".py")
    if module in _DYNAMIC:
        files += sorted(
            path.relative_to(root).as_posix() for path in root.glob(f"{'/'.join(parts)}/*.py")
        )
    return [file for file in files if (root / file).is_file()]


@cache
def _imports(path: Path) -> frozenset[str]:
    """Absolute names that a file imports; `from a import b` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)
