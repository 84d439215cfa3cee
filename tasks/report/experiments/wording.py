"""What the pages of experiments have in common."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.report.charts import Panels
from tasks.report.content import Figure
from tasks.report.figures.charts import picture
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def seeds_of(suite: "Suite") -> str:
    """Say which seeds a page's numbers are from."""
    if len(suite.seeds) == 1:
        return f"All from seed {suite.seeds[0]}: how much the numbers vary over seeds is not known."
    return f"Mean and spread over the seeds {', '.join(map(str, suite.seeds))}."


def commands(suite: "Suite", name: str, file: str) -> tuple[str, str]:
    """Give the command that makes an experiment's numbers, and that which traces its file."""
    made = f"adamerge experiment run {name} --suite {suite.name} {seeds_option(suite)}"
    return made, f"adamerge lineage {(paths.report(suite.name) / file).as_posix()}"


def seeds_option(suite: "Suite") -> str:
    """Write the option of the commands that set a suite's seeds."""
    return f"--seeds {' '.join(map(str, suite.seeds))}"


def charted(name: str, title: str, text: str, alt: str, panels: Panels) -> Figure:
    """Make a figure of charts: the data, and the picture drawn of them."""
    return Figure(name, title, text, alt, picture(panels), panels)


def heights(summaries: Iterable[Summary], column: str = AVERAGE) -> tuple[list[float], list[float]]:
    """Give the means of a column and their spreads, none for a single seed."""
    found = list(summaries)
    spreads = [each.deviation[column] for each in found if each.deviation]
    return [each.mean[column] for each in found], spreads
