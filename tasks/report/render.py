"""Pages filled in from their content, as HTML and as Markdown."""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from tasks.graph import paths
from tasks.report.content import Content
from tasks.report.escapes import in_markdown
from tasks.report.experiments.wording import seeds_option
from tasks.report.figures.interactive import LIBRARY, plots
from tasks.report.pages.results import headline
from tasks.report.reads import PAGES

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TEMPLATES = Path(__file__).with_name("templates")

_FINDINGS_ON_INDEX = 5
"""Of a page; a link leads to the others."""


def web_pages(suite: "Suite", shown: Mapping[str, Content], root: Path) -> dict[str, str]:
    """Fill in index.html and a page each; every one stands alone, its pictures in it.

    The library beside them makes the charts respond to the pointer; none needs it.
    """
    values = _values(suite, shown, root)
    pages = {
        f"{name}.html": _fill(
            "page.html", {**values, "page": PAGES[name], "name": name, "content": c}
        )
        for name, c in shown.items()
    }
    return {"index.html": _fill("index.html", {**values, "name": "index"}), **pages}


def markdown(suite: "Suite", shown: Mapping[str, Content], root: Path) -> str:
    """Fill in report.md: all pages, one after the other."""
    values = _values(suite, shown, root)
    ticks = re.findall("`+", values["parameters"])  # a fence is longer than any in what it holds
    return _fill("report.md", {**values, "fence": "`" * max([3, *(len(t) + 1 for t in ticks)])})


def _values(suite: "Suite", shown: Mapping[str, Content], root: Path) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "tasks": suite.tasks,
        "model": "classifier" if suite.model.is_classifier else "CLIP",
        "miniature": all(suite.datasets[t].get("source") == "miniature" for t in suite.tasks),
        "headline": headline(suite, root),
        "pages": {name: PAGES[name] for name in shown},
        "contents": shown,
        "files": [name for content in shown.values() for name in content.files],
        "library": LIBRARY,
        "shown_findings": _FINDINGS_ON_INDEX,
        "made_by": partial(_made_by, suite),
        "results_csv": (paths.report(suite.name) / "results.csv").as_posix(),
        "parameters": yaml.safe_dump(
            suite.raw, sort_keys=False, default_flow_style=None, width=100
        ),
    }


def _made_by(suite: "Suite", name: str, content: Content) -> Sequence[str]:
    """Give the commands of a page; of one that names none, those of the suite's whole report."""
    if content.made_by:
        return content.made_by
    traced = paths.report(suite.name) / next(iter(content.files), f"{name}.html")
    used = f"adamerge suite use {suite.name} {seeds_option(suite)}"
    return f"{used} && adamerge run", f"adamerge lineage {traced.as_posix()}"


def _fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template of this package; what is unknown to it is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["in_markdown"] = in_markdown
    environment.filters["plots"] = plots
    return environment.get_template(template).render(values)
