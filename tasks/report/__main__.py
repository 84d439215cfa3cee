"""report: the suite's pages, all of them as Markdown, the tables as CSV, the figures as PNG.

And the library with which the pages' charts respond to the pointer.

Equal metrics give equal bytes: no date, no host and no run stands in it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.report import reads
from tasks.report.figures.interactive import LIBRARY, library
from tasks.report.render import markdown, web_pages
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.suite.schema import checked

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def run(work: Work) -> None:
    """Write the report of the active suite."""
    write(checked(work.params, "params.yaml", work.options["suite"]), Path())


def write(suite: "Suite", root: Path) -> None:
    """Write a suite's report below the project's root.

    Raises one InputError that lists all files that are missing.
    """
    missing = [root / path for path in reads.reads(suite) if not (root / path).is_file()]
    if missing:
        faults = [f"{path} does not exist" for path in missing]
        faults.append("fix: run the stages that make them: dvc repro")
        raise InputError.listing("what the report reads is not all there", faults)
    shown = {name: page.show(suite, root) for name, page in reads.pages(suite).items()}
    texts = {**web_pages(suite, shown, root), "report.md": markdown(suite, shown, root)}
    files = {LIBRARY: library(), **{name: text.encode() for name, text in texts.items()}}
    for content in shown.values():
        files |= {name: text.encode() for name, text in content.files.items()}
        files |= {f"figures/{figure.name}.png": figure.png for figure in content.figures}
    for name, content_of_file in files.items():
        with atomic_write(root / paths.report(suite.name) / name) as temporary:
            temporary.write_bytes(content_of_file)


if __name__ == "__main__":
    run_stage(run)
