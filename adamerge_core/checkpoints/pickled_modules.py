"""torch modules in pickles as state dicts, by what the pickle describes; no class is looked up."""

from dataclasses import dataclass
from typing import Any

from adamerge_core.checkpoints.pickles import (
    Instance,
    Name,
    PickleError,
    TensorView,
    values_in,
)

_DEEPEST = 32
"""Most modules in one another: an image encoder's are 7."""

_LONGEST = 500
"""Characters of a tensor's name."""


@dataclass(frozen=True)
class Names:
    """What a pickle names, each as `module name`."""

    classes: frozenset[str]
    """Of its objects."""
    names: frozenset[str]
    """All others that are among its values."""


def names_in(value: Any) -> Names:
    """Collect what a pickle names: the classes of its objects, and the others."""
    classes, names = set[str](), set[str]()
    for each in values_in(value):
        if isinstance(each, Instance):
            classes.add(each.kind)
        elif isinstance(each, Name):
            names.add(each.text)
    return Names(frozenset(classes), frozenset(names))


def plain_attributes(module: Instance) -> dict[str, Any]:
    """Give a module's own attributes that are texts, numbers and truth values."""
    return {
        name: value
        for name, value in module.attributes.items()
        if isinstance(value, bool | int | float | str)
    }


def module_state(module: Instance) -> dict[str, TensorView]:
    """Name the parameters and persistent buffers of a module and those in it, as its state_dict
    would.

    Raises PickleError where what it holds is not a module's, or not a tree of bounded names.
    """
    state: dict[str, TensorView] = {}
    seen: set[int] = set()
    left = [("", 0, module)]
    while left:
        prefix, depth, each = left.pop()
        if depth > _DEEPEST:
            raise PickleError(f"more than {_DEEPEST} modules in one another")
        tables = [_table(each, name) for name in ("_parameters", "_buffers", "_modules")]
        passing = each.attributes.get("_non_persistent_buffers_set", [])
        for thing in (each, *filter(None, [*tables, passing])):
            if id(thing) in seen:
                raise PickleError(f"a module that stands in two places, again at {prefix!r}")
            seen.add(id(thing))
        if not isinstance(passing, list) or not all(isinstance(name, str) for name in passing):
            raise PickleError("a module whose buffers are described in no known way")
        parameters, buffers, modules = tables
        hidden = frozenset(passing)
        kept = {name: view for name, view in buffers.items() if name not in hidden}
        for name, view in (*parameters.items(), *kept.items()):
            if isinstance(view, TensorView):
                state[_joined(prefix, name)] = view
            elif view is not None:
                raise PickleError(f"a module whose tensor {str(name)[:100]} is none")
        for name, inner in reversed(modules.items()):
            if isinstance(inner, Instance):
                left.append((f"{_joined(prefix, name)}.", depth + 1, inner))
            elif inner is not None:
                raise PickleError(f"a module whose part {str(name)[:100]} is none")
    return state


def _table(module: Instance, name: str) -> dict[Any, Any]:
    found = module.attributes.get(name, {})
    if not isinstance(found, dict):
        raise PickleError(f"a module whose {name} are no dict")
    return found


def _joined(prefix: str, name: Any) -> str:
    if not isinstance(name, str) or not name or len(prefix) + len(name) > _LONGEST:
        raise PickleError(f"a module's part whose name is no text of 1 to {_LONGEST} characters")
    return prefix + name
