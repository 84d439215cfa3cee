"""The rooms of tasks/: what import contracts cannot say, and how full the rooms are."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

STAGES = {path.stem for path in (ROOT / "tasks").glob("*.py")} - {"__init__", "wiring"}


def python_files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "__init__.py"]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_stages_are_imported_by_none() -> None:
    """Each is a program; what two of them need stands in a room."""
    assert len(STAGES) > 10
    for path in python_files("tasks") + python_files("flows"):
        modules = {name.split(".")[1] for name in imported(path) if name.startswith("tasks.")}
        assert not modules & STAGES, path


def test_a_stage_is_run_and_the_line_that_starts_it() -> None:
    for name in STAGES:
        tree = ast.parse((ROOT / "tasks" / f"{name}.py").read_text(encoding="utf-8"))
        (run,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run"]
        assert [argument.arg for argument in run.args.args] == ["work"], name
        assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    run_stage(run)", name


def test_rooms_are_not_too_full() -> None:
    folders = [path for path in (ROOT / "tasks").rglob("*") if path.is_dir()]
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= 16, folder
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files("tasks")
    }
    assert max(lines.values()) <= 350, max(lines, key=lambda path: lines[path])
    assert statistics.median(lines.values()) < 110
