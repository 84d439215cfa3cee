"""Names of classes and of all else, up to the last page."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks.graph import paths
from tasks.report import render
from tasks.report.charts import BarChart, Bars, Chart, HeatMap, LineChart, Series
from tasks.report.content import Content
from tasks.report.escapes import in_markdown, plain
from tasks.report.experiments.wording import charted
from tasks.report.pages import samples
from tasks.shared.tables import write_json
from tasks.suite.schema import Suite
from tests.attacks.cases import Case, FaultError
from tests.attacks.suites.files import (
    folder_entry,
)
from tests.attacks.suites.paths import PATHS
from tests.tasks.report_inputs import small_suite, write_inputs

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


def _chart(names: tuple[str, ...], folder: Path) -> int:
    """Names come to every kind of chart: to the page's script as data, and never as markup."""
    warnings.simplefilter("error")
    suite = small_suite()
    write_inputs(suite, Path())
    labels = list(dict.fromkeys(names))
    lines = LineChart(names[0], names[1], [Series(name, [0, 1], [1, 2]) for name in labels])
    charts: dict[str, Chart] = {
        "lines": lines,
        "bars": BarChart(names[2], labels, [Bars(name, [1.0] * len(labels)) for name in labels]),
        "map": HeatMap(labels, labels, [[0.5] * len(labels)] * len(labels), names[3]),
    }
    figure = charted("figure", "title", "text", "alt", {**charts, names[4]: lines})
    page = render.web_pages(suite, {"results": Content(figures=[figure])}, Path())["results.html"]
    (block,) = re.findall('<script type="application/json">(.*?)</script>', page, re.DOTALL)
    if found := re.findall("[<>&'\x00-\x1f\x7f-\U0010ffff]", block):
        raise FaultError(f"{found} stand in a script")
    for sign in ("<script>alert", "\x00", "\u202e", "\u2028"):
        if sign in page:
            raise FaultError(f"{sign!r} stands on a page")
    plots = json.loads(block)
    if [plot["title"] for plot in plots] != [*charts, plain(names[4])]:
        raise FaultError(f"the charts are {[plot['title'] for plot in plots]}")
    if [trace["name"] for trace in plots[0]["data"]] != [plain(name) for name in labels]:
        raise FaultError("the lines have other names")
    for trace in plots[2]["data"]:  # what plotly reads tags in
        if found := re.findall("<(?!br>)", json.dumps(trace["hovertext"])):
            raise FaultError(f"{found} stand under the pointer")
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
    for first in range(0, len(CLASSES), 5):
        part = CLASSES[first : first + 5]
        part += tuple(f"filler{n}" for n in range(5 - len(part)))
        name = ", ".join(ascii(each)[1:12] for each in part)
        yield Case(f"page: classes {name}", partial(_class, part), "high")
        yield Case(f"page: charts {name}", partial(_chart, part), "high")
    yield Case("page: Markdown", _in_markdown, "high")
    yield Case("page: a fence among the parameters", _fence, "low")
    yield Case("page: names of fifty characters", _long_names, seconds=120)
