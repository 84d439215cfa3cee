"""Names: carried as they are, or refused with the rule."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite.schema import load_suite
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.suites.files import (
    folder_entry,
    graph_read_back,
    mini,
    put,
    same_to_dvc,
    write,
)

PLAIN = (
    *("no", "on", "y", "n", "yes", "off", "null", "true", "false", "nan", "inf", "007", "1e3"),
    *("0x1f", "0b1", "0o17", "1_000", "12345", "0", "e", "1e", "x__y", "z_", "stages", "item"),
    *("deps", "con", "nul", "aux", "com1", "model", "params", "a" * 50),
)
"""What a user may call a thing, though some reader of YAML takes it for another."""

BARRED = (
    *(
        "",
        " ",
        "a b",
        "a ",
        " a",
        "A",
        "Mnist",
        "é",
        "e\u0301",
        "ß",
        "日本",
        "😀",
        "\u0430",
        "ａ",
        "①",
    ),
    *(
        "a-b-",
        "-a",
        "_a",
        "_",
        ".",
        "..",
        ".a",
        "a.b",
        "../a",
        "/a",
        "a/b",
        "a\\b",
        "C:a",
        "~",
        "~a",
    ),
    *(
        "${x}",
        "${item.seed}",
        "$x",
        "@a",
        "a@b",
        "#a",
        "a#b",
        "a:b",
        "1:30",
        "2020-01-01",
        "<<",
        "=",
    ),
    *("a'b", 'a"b', "`id`", "$(id)", "a;b", "a|b", "a&b", "a>b", "a<b", "a*", "a?", "a[0]", "{a}"),
    *("a,b", "%s", "a%20b", "!a", "&a", "*a", "-", "--help", "a=b", "a+b", "a\u200bb", "a\u202eb"),
    *(
        "a\u200fb",
        "a\u00adb",
        "a\ufe0f",
        "\u2066a",
        "a" * 51,
        "a" * 300,
        "a" * 100_000,
        "<b>",
        "$a$",
    ),
)
MINUS = {"a-b-", "2020-01-01"}  # suites and models may have it


def _named(*names: str) -> Any:
    """A suite in which datasets, tasks and methods are called so."""
    content = mini()
    content["tasks"] = [*names, "mnist"]
    content["corrupt"]["tasks"] = list(names)
    for name in names:
        content["datasets"][name] = folder_entry()
        content["methods"][name] = {"rule": "task_arithmetic", "scaling": 0.2}
        content["robustness"]["methods"][name] = {"adapt": "layer_wise", "steps": 2}
    return content


def _carried(names: tuple[str, ...], folder: Path) -> int:
    content = _named(*names)
    content["suite"] = content["model"]["name"] = names[0].replace("_", "-").rstrip("-")
    suite = graph_read_back(content, folder)
    same_to_dvc(suite)
    if suite.tasks[:-1] != names or not set(names) <= set(suite.merging):
        raise FaultError(f"became {suite.tasks}")
    return len(names)


def _unquoted(folder: Path) -> int:
    """A name without quotes is that name, or refused; never another value."""
    text = write(_named("birds")).read_text(encoding="utf-8")
    for name in PLAIN:
        Path("suite.yaml").write_text(text.replace('"birds"', name), encoding="utf-8")
        try:
            found = load_suite(Path("suite.yaml")).tasks[0]
        except InputError as error:
            if "quotes" not in str(error):
                raise FaultError(f"{name}: {error}") from error
        else:
            if found != name:
                raise FaultError(f"{name} became {found!r}")
    return len(PLAIN)


def _barred(place: str, folder: Path) -> int:
    """Each name that is no name is refused, with the rule."""
    tried = [name for name in BARRED if place != "label" or name not in MINUS]
    for name in tried:
        content = mini()
        if place == "dataset":
            content["datasets"][name] = folder_entry()
        elif place == "task":
            content["tasks"][0] = name
        elif place == "method":
            content["methods"][name] = {"rule": "weight_averaging"}
        elif place == "robust":
            content["robustness"]["methods"][name] = {"rule": "weight_averaging"}
        else:
            content["suite"] = content["model"]["name"] = name
        path = write(content)
        error = refused(partial(load_suite, path), "a name has", "at most 50 characters")
        if "\u202e" in str(error) or len(str(error)) > 20_000:
            raise FaultError(f"the message shows the name as it is: {error!r:.500}")
    return len(tried)


def _reserved(folder: Path) -> int:
    names = ("average", "traditional_mtl", "method", "protocol", "seed", "corruption", "severity")
    for name in (*names, "criterion"):
        refused(partial(load_suite, write(_named(name))), repr(name), "another name")
    for name in ("pretrained", "individual", "traditional_mtl", "average"):
        content = put(mini(), ("methods", name), {"rule": "weight_averaging"})
        refused(partial(load_suite, write(content)), f"methods.{name}", "another name")
    return len(names) + 5


def _a_parameter(folder: Path) -> None:
    """A task called as the parameter that a method chooses would share its column."""
    content = _named("scaling")
    refused(
        partial(load_suite, write(content)), "'scaling'", "task_arithmetic_best", "another name"
    )


def _twice(place: tuple[str, ...], folder: Path) -> None:
    content = mini()
    values = content
    for key in place:
        values = values[key]
    values.append(values[0])
    refused(partial(load_suite, write(content)), ".".join(place), "each must stand once")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for first in range(0, len(PLAIN), 6):
        part = PLAIN[first : first + 6]
        yield Case(f"name: {', '.join(part):.60} are carried", partial(_carried, part))
    yield Case("name: without quotes", _unquoted)
    for place in ("dataset", "task", "method", "robust", "label"):
        yield Case(f"name: no {place}'s name", partial(_barred, place), "high")
    yield Case("name: reserved ones", _reserved)
    yield Case("name: a task called as a parameter", _a_parameter)
    for listed in (
        *(("tasks",), ("seeds",), ("corrupt", "tasks"), ("corrupt", "corruptions")),
        *(("corrupt", "severities"), ("pretrain", "datasets"), ("robustness", "corruptions")),
    ):
        yield Case(f"name: twice in {'.'.join(listed)}", partial(_twice, listed))
