"""What a function or a settings class takes by name, and whether given values fit it."""

import dataclasses
import difflib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

REQUIRED: Any = object()
"""The default of a parameter that has none."""

WHOLE_NUMBERS = 2**63 - 1
"""The greatest whole number: what 64 bits hold."""

REALS = (2 - 2**-23) * 2.0**127
"""The greatest number: what float32 holds, in which models are merged."""


@dataclass(frozen=True)
class Parameter:
    """A keyword parameter of a function, or a field of a dataclass."""

    default: Any
    """REQUIRED where it must be given."""
    kind: Any
    """Its annotation, resolved to a type."""


def of_function(function: Callable[..., Any], positional: int) -> dict[str, Parameter]:
    """List a function's parameters by name, without its first `positional` ones."""
    hints = get_type_hints(function)
    listed = list(inspect.signature(function).parameters.values())[positional:]
    return {
        each.name: Parameter(
            REQUIRED if each.default is inspect.Parameter.empty else each.default,
            hints.get(each.name, Any),
        )
        for each in listed
    }


def of_dataclass(settings: type[Any]) -> dict[str, Parameter]:
    """List a dataclass's fields by name."""
    hints = get_type_hints(settings)
    return {
        each.name: Parameter(
            REQUIRED if each.default is dataclasses.MISSING else each.default, hints[each.name]
        )
        for each in dataclasses.fields(settings)
    }


def faults(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Any],
    most: float = sys.float_info.max,
) -> list[str]:
    """Say what is wrong with `values`, a line each: unknown, missing, or of the wrong type.

    most: the greatest magnitude of a number that is no whole one. A value's range is the function's
    own to check.
    """
    lines = [_unknown(name, parameters) for name in values if name not in parameters]
    for name, parameter in parameters.items():
        if name not in values:
            if parameter.default is REQUIRED:
                lines.append(f"{name}: is missing; it must be {_words(parameter.kind)}")
        elif not _fits(values[name], parameter.kind, most):
            hint = _hint(values[name], parameter.kind, most)
            lines.append(f"{name} = {shown(values[name])}: must be {_words(parameter.kind)}{hint}")
    return lines


def _unknown(name: str, parameters: Mapping[str, Parameter]) -> str:
    close = difflib.get_close_matches(str(name), parameters, n=1)
    known = f"known are {', '.join(parameters)}" if parameters else "there are none"
    mean = f"; do you mean {close[0]}?" if close else ""
    return f"{name}: is no parameter; {known}{mean}"


def _fits(value: Any, kind: Any, most: float) -> bool:
    if kind is Any:
        return True
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each, most) for each in get_args(kind))
    if origin is tuple:
        element = get_args(kind)[0]
        return isinstance(value, list | tuple) and all(_fits(each, element, most) for each in value)
    if kind is float:  # True is an int, and an int will do
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= (WHOLE_NUMBERS if isinstance(value, int) else most)
    if kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) <= WHOLE_NUMBERS
    return isinstance(value, kind)


def count_faults(name: str, value: object, least: int = 1, most: int = WHOLE_NUMBERS) -> list[str]:
    """Say what keeps `value` from being a whole number from `least` to `most`: a line, or none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return [f"{name} = {shown(value)}: must be a whole number (int), at least {least}"]
    if value < least:
        return [f"{name} = {shown(value)}: must be at least {least}"]
    return [] if value <= most else [f"{name} = {shown(value)}: must be at most {most}"]


def number_faults(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> list[str]:
    """Say what keeps `value` from being a number for which `holds`: a line, or none.

    rule: in words; `holds` must be false of NaN.
    """
    # True is an int, and YAML reads 1e-3 as text
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{name} = {shown(value)}: must be a number (int or float), {rule}"]
    try:
        fits = holds(float(value))
    except OverflowError:  # an int beyond the largest float
        fits = False
    return [] if fits else [f"{name} = {shown(value)}: must be {rule}"]


def shown(value: object) -> str:
    """Write a value as Python does, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _hint(value: Any, kind: Any, most: float) -> str:
    """Say what to write instead, where that is known."""
    if isinstance(value, str) and not _fits(value, kind, most):  # YAML 1.1 wants a point in 1e-3
        try:
            number = float(value)
        except ValueError:
            return ""
        return (
            f" (YAML reads {value} as text: write {number!r})" if _fits(number, kind, most) else ""
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not _fits(0.5, kind, most):
        return ""
    if isinstance(value, int) and abs(value) <= most:  # torch takes whole numbers of 64 bits
        return f" (a whole number has at most 64 bits: write {float(value)!r})"
    return f", at most {most:.2g}"


def _words(kind: Any) -> str:
    names = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in get_args(kind))
    if origin is tuple:
        return f"a list, each {_words(get_args(kind)[0])}"
    return names.get(kind, "null" if kind is type(None) else getattr(kind, "__name__", str(kind)))
