"""Pages filled in from their content, as HTML and as Markdown."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from tasks.graph import paths
from tasks.report.content import Content
from tasks.report.escapes import in_markdown
from tasks.report.pages.results import headline
from tasks.report.reads import PAGES

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TEMPLATES = Path(__file__).with_name("templates")


def web_pages(suite: "Suite", shown: Mapping[str, Content], root: Path) -> dict[str, str]:
    """Fill in index.html and a page each; every one stands alone, its pictures in it."""
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
        "results_csv": (paths.report(suite.name) / "results.csv").as_posix(),
        "parameters": yaml.safe_dump(
            suite.raw, sort_keys=False, default_flow_style=None, width=100
        ),
    }


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
    return environment.get_template(template).render(values)
