"""Which pages a suite's report has, what they read and what is written of them.

The graph and the check for missing files both read this. A page is a module of tasks.report.pages;
one that has nothing to read of a suite is left out. Nothing here imports matplotlib.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tasks.graph import paths
from tasks.report.content import Content
from tasks.report.experiments import (
    corruptions,
    cost,
    deployment,
    labels,
    number_of_tasks,
    sensitivity,
    surrogate,
    unlabeled,
    unseen,
)
from tasks.report.figures.interactive import LIBRARY
from tasks.report.pages import (
    adaptation,
    choice,
    coefficients,
    results,
    robustness,
    samples,
    task_vectors,
)

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


class Page(Protocol):
    """A page of the report."""

    TITLE: str
    QUESTION: str
    """What it answers."""
    FIGURES: tuple[str, ...]
    """The names of its pictures."""
    FILES: tuple[str, ...]
    """What it writes beside the pages."""

    def reads(self, suite: "Suite") -> list[Path]:
        """List the files that the page reads, relative to the project's root."""

    def show(self, suite: "Suite", root: Path) -> Content:
        """Make what the page shows, from the files below the project's root."""


PAGES: dict[str, Page] = {
    "results": results,
    "adaptation": adaptation,
    "coefficients": coefficients,
    "choice": choice,
    "task_vectors": task_vectors,
    "robustness": robustness,
    "sensitivity": sensitivity,
    "unlabeled": unlabeled,
    "unseen": unseen,
    "corruptions": corruptions,
    "surrogate": surrogate,
    "labels": labels,
    "cost": cost,
    "number_of_tasks": number_of_tasks,
    "deployment": deployment,
    "samples": samples,
}
"""By file name, in the order of the contents."""

_HERE = Path("tasks/report")

STATIC = (
    _HERE / "published_results.csv",
    *(
        _HERE / "templates" / name
        for name in (
            "base.html",
            "index.html",
            "page.html",
            "macros.html",
            "style.css",
            "charts.js",
            "report.md",
        )
    ),
)
"""Files of this package that are no Python."""


def pages(suite: "Suite") -> dict[str, Page]:
    """Give the pages for which a suite has something to read."""
    return {name: page for name, page in PAGES.items() if page.reads(suite)}


def reads(suite: "Suite") -> list[Path]:
    """List the files that the report of a suite reads, each once."""
    return list(dict.fromkeys(path for page in pages(suite).values() for path in page.reads(suite)))


def outputs(suite: "Suite") -> list[str]:
    """List the files of a suite's report, relative to its folder."""
    shown = pages(suite)
    return [
        "index.html",
        *(f"{name}.html" for name in shown),
        "report.md",
        LIBRARY,
        *(name for page in shown.values() for name in page.FILES),
        *(f"figures/{name}.png" for page in shown.values() for name in page.FIGURES),
    ]


def figures(suite: "Suite") -> list[Path]:
    """List the pictures of a suite's report, which `dvc plots show` puts on one page."""
    return [
        paths.report(suite.name) / "figures" / f"{name}.png"
        for page in pages(suite).values()
        for name in page.FIGURES
    ]
