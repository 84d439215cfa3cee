"""The merge rules, preprocessings, objectives and presets there are, read from their source files.

Importing adamerge_core.merging imports torch, which takes seconds; the commands and the graph need
only names, parameters and docstrings. These stand in the source: what the decorators of
adamerge_core.merging.registry and adamerge_core.adamerging.objective register, and the settings.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite.source_tables import CORE, entries

_SETTINGS = CORE / "adamerging" / "settings.py"
_DECORATORS = ("merge_rule", "preprocessing", "objective")


@dataclass(frozen=True)
class Parameter:
    """A keyword parameter of a function, or a field of a settings class."""

    default: Any
    annotation: str
    """Its type as the source has it; empty where it has none."""
    doc: str = ""
    """A field's docstring."""


@dataclass(frozen=True)
class Rule:
    """A registered function."""

    name: str
    kind: str
    """merge_rule, preprocessing or objective: the decorator's name."""
    module: str
    """The module that it stands in: what a stage that uses it depends on."""
    summary: str
    """The first paragraph of its docstring, on one line."""
    doc: str
    """All of its docstring."""
    source: str
    """The paper, and where in it the formula stands."""
    needs: str | None
    """A statistic per task for a rule, what targets are for an objective; None if it needs none."""
    parameters: Mapping[str, Parameter]
    start: float = 0.3
    """Of a preprocessing: the coefficient of every task where adaptation starts."""


def merge_rules() -> dict[str, Rule]:
    """The merge rules by name."""
    return _of_kind("merge_rule")


def preprocessings() -> dict[str, Rule]:
    """The preprocessings by name."""
    return _of_kind("preprocessing")


@cache
def objectives() -> dict[str, Rule]:
    """The objectives by name."""
    return {rule.name: rule for rule in _read(CORE / "adamerging" / "objective.py")}


@cache
def adaptation_options() -> dict[str, Parameter]:
    """The fields of adamerge_core.adamerging.AdaptationSettings by name."""
    body = _body(_SETTINGS, "AdaptationSettings")
    return {
        field.target.id: Parameter(
            ast.literal_eval(field.value), ast.unparse(field.annotation), _text(below)
        )
        for field, below in zip(body, [*body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value
    }


@cache
def required_of_adaptations() -> dict[str, Any]:
    """What an adaptation of a suite must say where it names no preset, with the paper's values."""
    names = ("steps", "images_per_task", "learning_rate", "start")
    return {name: adaptation_options()[name].default for name in names}


@cache
def presets() -> dict[str, dict[str, Any]]:
    """adamerge_core.adamerging.PRESETS: by name what it says of the fields of the settings, and of
    those that an adaptation must say.
    """
    return {
        name: required_of_adaptations() | _arguments(call)
        for name, call in entries(_SETTINGS, "PRESETS")
        if isinstance(call, ast.Call)
    }


def _arguments(call: ast.Call) -> dict[str, Any]:
    """Those of a call of AdaptationSettings, by field."""
    places = dict(zip(adaptation_options(), call.args, strict=False))
    named = {str(each.arg): each.value for each in call.keywords}
    return {name: ast.literal_eval(value) for name, value in (places | named).items()}


@cache
def mask_options() -> dict[str, Parameter]:
    """The parameters of adamerge_core.adamerging.SingularMasks beside the task vectors."""
    (made,) = [
        node
        for node in _body(CORE / "adamerging" / "adarank.py", "SingularMasks")
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    return dict(list(_parameters(made.args).items())[2:])


def _body(path: Path, name: str) -> list[ast.stmt]:
    """What stands in a class of a module."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = [n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name]
    return found.body


def _of_kind(kind: str) -> dict[str, Rule]:
    return {rule.name: rule for rule in _registered() if rule.kind == kind}


@cache
def _registered() -> tuple[Rule, ...]:
    """By file, then in the order of each file."""
    paths = sorted((CORE / "merging").glob("*.py"))
    return tuple(rule for path in paths for rule in _read(path))


def _read(path: Path) -> Iterator[Rule]:
    """Raises InputError where a file is no Python or a decorator's argument is computed."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no Python ({error}); mend the file or remove it") from error
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for decorator in function.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Name)
                and decorator.func.id in _DECORATORS
            ):
                yield _rule(path, function, decorator.func.id, decorator)


def _rule(path: Path, function: ast.FunctionDef, kind: str, decorator: ast.Call) -> Rule:
    module = ".".join(path.relative_to(CORE.parent).with_suffix("").parts)
    doc = ast.get_docstring(function) or ""
    try:
        said = {str(each.arg): ast.literal_eval(each.value) for each in decorator.keywords}
        parameters = _parameters(function.args)
    except ValueError as error:
        raise InputError(
            f"{path}, {function.name}: source, needs, start and the parameters' defaults must be "
            f"plain values, for they are read without running the file ({error})"
        ) from error
    needs = said.get("needs")
    positional = 2 if needs or kind == "objective" else 1
    return Rule(
        function.name,
        kind,
        module,
        doc.split("\n\n")[0].replace("\n", " "),
        doc,
        said.get("source", ""),
        needs,
        dict(list(parameters.items())[positional:]),
        said.get("start", Rule.start),
    )


def _parameters(arguments: ast.arguments) -> dict[str, Parameter]:
    """All of a function, those without a default with None."""
    places = [*arguments.posonlyargs, *arguments.args]
    unset = [None] * (len(places) - len(arguments.defaults))
    values = [*unset, *arguments.defaults, *arguments.kw_defaults]
    return {
        each.arg: Parameter(
            ast.literal_eval(value) if value else None,
            ast.unparse(each.annotation) if each.annotation else "",
        )
        for each, value in zip([*places, *arguments.kwonlyargs], values, strict=True)
    }


def _text(node: ast.stmt | None) -> str:
    """The string that a statement consists of, on one line; empty if it is another statement."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""
