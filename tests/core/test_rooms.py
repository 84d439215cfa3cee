"""What each part of the library may know of the others, read off its import statements."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import adamerge_core

PACKAGE = Path(adamerge_core.__file__).parent
MERGING = (
    "adamerge_core.task_vectors",
    "adamerge_core.storage",
    "adamerge_core.merging",
    "adamerge_core.adamerging",
    "adamerge_core.statistics",
)
FINE_TUNING = (
    "adamerge_core.batches",
    "adamerge_core.checkpoints",
    "adamerge_core.distributed",
    "adamerge_core.evaluation",
    "adamerge_core.vision.clip",
    "adamerge_core.vision.heads",
    "adamerge_core.vision.training",
    "adamerge_core.widening",
)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("adamerge_core", exclude_type_checking_imports=True, cache_dir=None)


def lies_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("module", FINE_TUNING)
def test_fine_tuning_depends_on_no_merging(imports: grimp.ImportGraph, module: str) -> None:
    """Imports inside functions count, those for type checkers do not."""
    known = imports.find_upstream_modules(module)
    assert not [name for name in known if lies_in(name, MERGING)]


@pytest.mark.parametrize("statistic", ["fisher", "gram"])
def test_statistics_depend_on_no_merging(imports: grimp.ImportGraph, statistic: str) -> None:
    known = imports.find_upstream_modules(f"adamerge_core.statistics.{statistic}")
    others = [room for room in MERGING if room != "adamerge_core.statistics"]
    assert not [name for name in known if lies_in(name, tuple(others))]


def test_merging_has_these_rooms(imports: grimp.ImportGraph) -> None:
    assert set(MERGING) <= imports.modules
    assert "adamerge_core.storage" in imports.find_upstream_modules("adamerge_core.task_vectors")


@pytest.mark.parametrize(
    "module", ["adamerge_core.coefficient_files", "adamerge_core.safetensors_files"]
)
def test_readers_of_results_import_no_torch(module: str) -> None:
    script = f"import sys, {module}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def is_list_of_names(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


def is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def loads_every_module(statement: ast.stmt) -> bool:
    """Whether it is the loop that imports a package's own files, which register themselves."""
    return isinstance(statement, ast.For) and "pkgutil.iter_modules" in ast.unparse(statement.iter)


def loads_on_first_use(statement: ast.stmt) -> bool:
    """Whether it belongs to the lazy loading of the library's public names."""
    if isinstance(statement, ast.If):
        return "TYPE_CHECKING" in ast.unparse(statement.test)
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0]) in ("_HOMES", "_HOME_OF")
    return isinstance(statement, ast.FunctionDef) and statement.name == "__dir__"


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.rglob("__init__.py")),
    ids=lambda path: path.parent.relative_to(PACKAGE.parent).as_posix(),
)
def test_the_file_of_a_package_only_imports(path: Path) -> None:
    """Nothing is defined there, so a change in it changes no result and no stage depends on it."""
    allowed = [is_import, is_list_of_names, is_docstring, loads_every_module]
    if path.parent == PACKAGE:
        allowed.append(loads_on_first_use)
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    others = [each for each in statements if not any(rule(each) for rule in allowed)]
    assert [f"line {each.lineno}: {ast.unparse(each)[:60]}" for each in others] == []
