"""Random slips in the shipped suites: a suite whose graph is read back, or its faults told."""

import copy
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks import wiring
from tasks.suite.schema import load_suite
from tasks.suite.yaml_files import load_yaml
from tests.attacks.cases import Case, FaultError
from tests.attacks.suites.files import ROOT, here, write

BATCHES, EACH = 12, 50

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, 10**18, -(2**63), 1e308, 1e-308, 1e39),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "no", "null", "1e3", "${x}", "a" * 300),
    *("\u202e", "é", "../x", "/", "mnist", "clean", "entropy", "layer_wise", "task_arithmetic"),
    *([], [[]], {}, {"": ""}, [None], ["x"], [0, 0], {"x": 1}, {"name": "ties"}, {"rule": "dare"}),
    *({"adapt": "layer_wise"}, {"adapt": []}, {"rule": {}}, {"scaling": [0.1], "by": "entropy"}),
    *({"source": "miniature"}, {"source": "image_folder", "path": "x", "templates": ["{}"]}),
    *({"name": "trim_and_elect", "keep": 0}, [{"a": [{"b": []}]}], "x" * 10_000, list(range(300))),
)


def _places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _places(value, (*place, key))


def _slip(content: Any, chance: random.Random) -> None:
    """Change content at a random place, in one of six ways."""
    *above, last = chance.choice(list(_places(content)))
    inner = content
    for key in above:
        inner = inner[key]
    how = chance.choice(("drop", "replace", "replace", "nest", "swap", "rename", "double"))
    if how == "drop":
        del inner[last]
    elif how == "nest":
        inner[last] = chance.choice(([inner[last]], {"x": inner[last]}, [[inner[last]]]))
    elif how == "swap":
        *others, other = chance.choice(list(_places(content)))
        there = content
        for key in others:
            there = there[key]
        inner[last] = copy.deepcopy(there[other])
    elif how == "rename" and isinstance(inner, dict):
        name = chance.choice(("x", "size", "choose", "", "é", "a b", "${x}", f"{last}s", "null"))
        inner[name] = inner.pop(last)
    elif how == "double" and isinstance(inner, list):
        inner.append(inner[last])
    else:
        inner[last] = copy.deepcopy(chance.choice(HOSTILE))


def _bytes_slip(text: str, chance: random.Random) -> str:
    """Change the text itself: cut, double, remove or put in a piece."""
    begin = chance.randrange(len(text))
    end = min(len(text), begin + chance.choice((1, 1, 5, 40, 400)))
    piece = chance.choice(
        (
            "",
            text[begin:end] * 2,
            "\t",
            ":",
            "-",
            "[",
            "}",
            "&a ",
            "*a",
            "!!",
            "\x00",
            "\n",
            "'",
            "é",
        )
    )
    return text[:begin] + piece + text[end:]


def _good_end(path: Path) -> None:
    """A valid suite's graph is written and read back the same; else an InputError tells faults."""
    try:
        suite = load_suite(path)
    except InputError as error:
        if len(str(error)) > 30_000 or str(path) not in str(error):
            raise FaultError(
                f"a message of {len(str(error))} characters: {error!s:.300}"
            ) from error
        return
    graph = Path("dvc.yaml")
    graph.write_text(wiring.dvc_yaml(suite), encoding="utf-8")
    misfits = wiring.misfits(suite, graph)
    if misfits:
        raise FaultError(f"the graph is read back otherwise: {misfits[:3]}")
    again = load_suite(write(suite.raw, Path("again.yaml")))
    if again != suite:
        raise FaultError("what was read is another when it is written and read again")


def _batch(seed: int, folder: Path) -> int:
    here(folder)
    chance = random.Random(seed)
    for number in range(EACH):
        shipped = ROOT / "suites" / chance.choice(("mini.yaml", "mini_methods.yaml"))
        path = Path("suite.yaml")
        if number % 5 == 4:
            text = shipped.read_text(encoding="utf-8")
            for _ in range(chance.choice((1, 1, 3))):
                text = _bytes_slip(text, chance)
            path.write_text(text, encoding="utf-8")
        else:
            content = load_yaml(shipped)
            for _ in range(chance.choice((1, 1, 2, 5))):
                _slip(content, chance)
            write(content, path)
        try:
            _good_end(path)
        except Exception as error:
            raise FaultError(f"mutation {number} of batch {seed}: {error!r}") from error
    return EACH


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for seed in range(BATCHES):
        yield Case(f"fuzz: batch {seed}", partial(_batch, seed), "high", seconds=300)
