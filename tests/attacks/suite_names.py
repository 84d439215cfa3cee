"""Names and paths: carried as they are to the last page, or refused with the rule."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.report import render
from tasks.report.escapes import in_markdown
from tasks.report.pages import samples
from tasks.shared.tables import write_json
from tasks.suite.schema import Suite, load_suite
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.suite_files import (
    folder_entry,
    graph_read_back,
    here,
    mini,
    put,
    same_to_dvc,
    write,
)
from tests.tasks.report_inputs import small_suite, write_inputs

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

PATHS = (
    *("/srv/a b", "/srv/ a", "/srv/a ", "/srv/a'b", '/srv/a"b', "/srv/a#b", "/srv/#", "/srv/@a"),
    *(
        "/srv/é",
        "/srv/e\u0301",
        "/srv/日本",
        "/srv/😀",
        "/srv/\u200fא",
        "/srv/a\u200bb",
        "/srv/a\u202eb",
    ),
    *(
        "/srv/a\\b",
        "/srv/*",
        "/srv/?",
        "/srv/[a]",
        "/srv/{a}",
        "/srv/$HOME",
        "/srv/%20",
        "/srv/a: b",
    ),
    *(
        "/srv/- a",
        "/srv/null",
        "/srv/1e3",
        "/srv/~",
        "/srv/a,b",
        "/srv/a;b",
        "/srv/a&b",
        "/srv/`id`",
    ),
    *(
        "/srv/$(id)",
        "/srv/<b>",
        "/srv/a|b",
        "/srv/!x",
        "/srv/...",
        "/srv/.a",
        "/srv/a=b",
        "/srv/--x",
    ),
    *("images", "./images", "../other", "images/a b", "~/images", "null", "no", "1e3", "007", "-x"),
    *("/srv/" + "x" * 255, "/srv/a\u00ad", "/srv/a.py", "$x", "@x", "#x", "'x'", "%x", "!x", "&x"),
)
NO_PATHS = {
    "/srv/${x}": "${", "${item.dataset}": "${", "/srv/\\${x}": "${", "/srv/a\x7f": "U+007F",
    "/srv/a\x85": "U+0085", "/srv/a\u2028": "U+2028", "/srv/a\nb": "U+000A", "/srv/a\tb": "U+0009",
    "/srv/\x1b[31m": "U+001B", "/srv/\x00": "U+0000", "\ufeff/srv": "U+FEFF",
    "s3://bucket/x": "address",
    "http://example.org/x": "address", "remote:x": "address", "file:///srv/x": "address",
    "C:/images": "address", "": "project itself", ".": "project itself", "..": "project itself",
    "/": "project itself", "a/..": "project itself", "data": "lies in data/",
    "data/datasets": "data/",
    "./data/x": "data/", "a/../data": "data/", ".dvc/cache": ".dvc/", ".git": ".git/",
    ".adamerge": ".adamerge/", "linked": "data/",
    "/srv/" + "x" * 256: "at most", "x/" * 600: "at most",
}  # fmt: skip

CLASSES = (
    *(r"$\frac$", "$x$", "$", r"\frac", "<script>alert(1)</script>", "a|b", "=cmd()", "+1", "@x"),
    *(
        "_under_",
        "__a__",
        "*b*",
        "`c`",
        "![x](y)",
        "[x](javascript:alert(1))",
        "# h",
        "- a",
        "1. a",
    ),
    *(
        "😀",
        "日本語",
        "עברית",
        "\u202etxt.exe",
        "\u200b",
        "\u2066x",
        "e\u0301",
        "nul\x00",
        "\x1b[31m",
    ),
    *(
        "a\nb",
        "\t",
        "\x7f",
        "\x85",
        "\u2028",
        " ",
        "",
        "\\",
        "&lt;",
        "&",
        "{{ 7*7 }}",
        "{% x %}",
        "${x}",
    ),
    *(
        "x" * 200,
        "x " * 100,
        "~~~",
        "```",
        "---",
        "|---|",
        "%s",
        "'",
        '"',
        "</td>",
        "]]>",
        "<!--",
        "\ufeff",
    ),
)


# --- names ----------------------------------------------------------------------------------------


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


# --- paths ----------------------------------------------------------------------------------------


def _with_path(path: str) -> Any:
    content = put(mini(), ("datasets", "birds"), folder_entry(path))
    content["tasks"].append("birds")
    return content


def _path_carried(listed: tuple[str, ...], folder: Path) -> int:
    """Our reader and DVC's give each path back; nothing is left to write anew."""
    content = mini()
    for number, path in enumerate(listed):
        content["datasets"][f"birds{number}"] = folder_entry(path)
    suite = graph_read_back(content, folder)
    same_to_dvc(suite)
    for number, path in enumerate(listed):
        (found,) = suite.sources[f"birds{number}"].files()
        if found != Path(path):
            raise FaultError(f"{path!r} became {str(found)!r}")
    return len(listed)


def _no_path(folder: Path) -> int:
    here(folder)
    (folder / "data").mkdir()
    (folder / "linked").symlink_to("data")
    for path, told in NO_PATHS.items():
        refused(partial(load_suite, write(_with_path(path))), told)
    return len(NO_PATHS)


def _every_fault(folder: Path) -> None:
    content = mini()
    for number, path in enumerate(NO_PATHS):
        if not re.search("[\x00-\x1f\x7f-\x9f\u2028\ufeff]", path) and path != "linked":
            content["datasets"][f"birds{number}"] = folder_entry(path)
    error = refused(partial(load_suite, write(content)))
    missing = [
        key for key in content["datasets"] if "birds" in key and f".{key}." not in str(error)
    ]
    if missing:
        raise FaultError(f"{missing} are not told: {error}")


# --- pages ----------------------------------------------------------------------------------------


def _pages(suite: Suite) -> dict[str, str]:
    content = {"samples": samples.show(suite, Path())}
    return {
        **render.web_pages(suite, content, Path()),
        "md": render.markdown(suite, content, Path()),
    }


def _class(names: tuple[str, ...], folder: Path) -> int:
    """Five classes of a task come to the page of images, in figure, HTML and Markdown."""
    warnings.simplefilter("error")
    suite = small_suite()
    write_inputs(suite, Path())
    write_json(paths.classes("mnist"), {"classes": list(names), "templates": ["a {}."]})
    if json.loads(paths.classes("mnist").read_text())["classes"] != list(names):
        raise FaultError("classes.json holds others")
    pages = _pages(suite)
    page, text = pages["samples.html"], pages["md"]
    for sign in (
        "<script>alert",
        "</td>\n</td>",
        "\x00",
        "\x1b",
        "\u202e",
        "\x7f",
        "\x85",
        "\u2028",
    ):
        if sign in page or sign in text:
            raise FaultError(f"{sign!r} stands on a page")
    if page.count("</td>") != page.count("<td"):
        raise FaultError("a class closes a cell")
    rows = [line for line in text.splitlines() if line.startswith("| mnist |")]
    if not any(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows):
        raise FaultError(f"the row of mnist is cut: {rows}")
    for name in names:
        letters = re.sub(r"[^a-z]", "", name)[:10]
        if name.isascii() and name.isalnum() and letters not in page:
            raise FaultError(f"{name!r} is not on the page")
    return len(names)


def _in_markdown(folder: Path) -> int:
    """What notes of runs and tables show acts in none."""
    for name in (*CLASSES, *PATHS):
        shown = in_markdown(name)
        if re.search(r"(?<!\\)[`*\[\]|$]|[<>]", shown.replace("\\\\", "")):
            raise FaultError(f"{name!r} became {shown!r}")
    return len(CLASSES) + len(PATHS)


def _fence(folder: Path) -> None:
    """Parameters that hold a fence do not end the block that shows them."""
    suite = small_suite()
    entry = folder_entry("/srv/" + "`" * 5 + " x " * 60 + "```\n"[:3])
    suite = small_suite(datasets={**suite.datasets, "birds": entry})
    write_inputs(suite, Path())
    text = _pages(suite)["md"]
    block = text[text.index("Parameters of the suite") :].split("\n", 3)[2]
    if not block.startswith("``````yaml"):
        raise FaultError(f"the fence is {block!r}")


def _long_names(folder: Path) -> None:
    """Names of fifty characters leave the pictures whole."""
    from tasks.report.__main__ import write as write_report

    warnings.simplefilter("error")
    raw, long = small_suite().raw, ("a" * 50, "w_" * 24 + "_x", "no")
    datasets = raw["datasets"] | {name: folder_entry() for name in long}
    methods = raw["methods"] | {
        "b" * 50: {"rule": "task_arithmetic", "scaling": 0.2},
        "null": {"adapt": "layer_wise", "steps": 4},
    }
    corrupt = raw["corrupt"] | {"tasks": list(long[:2])}
    suite = small_suite(tasks=list(long), datasets=datasets, methods=methods, corrupt=corrupt)
    write_inputs(suite, Path())
    os.environ["MPLBACKEND"] = "agg"
    write_report(suite, Path())


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
    for first in range(0, len(PATHS), 7):
        part = PATHS[first : first + 7]
        yield Case(f"path: {first} to {first + len(part) - 1}", partial(_path_carried, part))
    yield Case("path: refused ones", _no_path, "high")
    yield Case("path: all faults at once", _every_fault, "low")
    for first in range(0, len(CLASSES), 5):
        part = CLASSES[first : first + 5]
        part += tuple(f"filler{n}" for n in range(5 - len(part)))
        name = ", ".join(ascii(each)[1:12] for each in part)
        yield Case(f"page: classes {name}", partial(_class, part), "high")
    yield Case("page: Markdown", _in_markdown, "high")
    yield Case("page: a fence among the parameters", _fence, "low")
    yield Case("page: names of fifty characters", _long_names, seconds=120)
