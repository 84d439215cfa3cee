"""The public names: all there, typed, and free until used; the reference has every one of them."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api as mypy

import adamerge_core

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "api"
SOURCE = Path(adamerge_core.__file__)


def typed_names() -> list[str]:
    """What the block for type checkers imports."""
    blocks = [
        node
        for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    (block,) = blocks
    return [
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def test_names_are_those_that_a_type_checker_sees() -> None:
    assert len(set(adamerge_core.__all__)) == len(adamerge_core.__all__) <= 40
    assert sorted(adamerge_core.__all__) == sorted(typed_names())


@pytest.mark.parametrize("name", adamerge_core.__all__)
def test_every_name_resolves(name: str) -> None:
    assert getattr(adamerge_core, name) is not None
    assert name in dir(adamerge_core)


def test_no_module_has_the_name_of_something_else() -> None:
    modules = {module.name for module in pkgutil.iter_modules(adamerge_core.__path__)}
    assert modules & set(adamerge_core.__all__) == {"checkpoints", "distributed"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'adamerge_core' has no attribute 'Motor'"):
        _ = adamerge_core.Motor


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys, adamerge_core\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert adamerge_core.InputError.__name__ == 'InputError'\n"
        "assert 'torch' not in sys.modules\n"
        "assert adamerge_core.checkpoints.load\n"
        "assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_star_import_gives_every_name() -> None:
    names: dict[str, object] = {}
    exec("from adamerge_core import *", names)
    assert names.keys() - {"__builtins__"} == set(adamerge_core.__all__)


@pytest.mark.slow
def test_the_names_are_typed(tmp_path: Path) -> None:
    """A program's type checker sees what each name is, and refuses names that there are not."""
    program = tmp_path / "program.py"
    program.write_text(
        f"from adamerge_core import {', '.join(adamerge_core.__all__)}\n"
        + "".join(f"reveal_type({name})\n" for name in adamerge_core.__all__)
        + "from adamerge_core import Motor\n"
    )
    cache = ROOT / ".mypy_cache"
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    report, errors, _ = mypy.run([*options, str(program)])
    assert errors == ""
    revealed = re.findall(r'note: Revealed type is "(.*)"', report)
    assert len(revealed) == len(adamerge_core.__all__), report
    untyped = [
        name
        for name, shown in zip(adamerge_core.__all__, revealed, strict=True)
        if shown == "Any" or shown.startswith("def (*args: Any")
    ]
    assert untyped == []
    faults = [line for line in report.splitlines() if " error: " in line]
    assert len(faults) == 1, report
    assert 'Module "adamerge_core" has no attribute "Motor"' in faults[0]


def test_installed_packages_carry_the_mark_of_typed_ones() -> None:
    spec = importlib.util.find_spec("adamerge_core")
    assert spec
    assert spec.origin
    assert (Path(spec.origin).parent / "py.typed").is_file()


def test_the_reference_has_every_name() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    documented = re.findall(r"^\.\. (?:auto\w+|py:data):: adamerge_core\.(\w+)$", text, re.M)
    assert set(adamerge_core.__all__) <= set(documented)
