"""What the end of a run says: its artifacts on Prefect's page, and the text of its state."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows import servers
from flows.execute import Run
from tasks.report import results
from tasks.running.environment import HOST, PORTS

Averages = Mapping[tuple[str, str], float]
"""Accuracies in percent by protocol and method."""


@dataclass(frozen=True)
class Ending:
    """How a run ended, in what its artifacts and its messages say."""

    suite: str
    summary: str
    failures: str
    """The last lines of the stages that failed, in Markdown; empty where none did."""
    falls: tuple[str, ...]
    """The accuracies that fell by more than the suite tolerates, a line each."""
    table: str
    """The results in Markdown, with the change since the last run."""
    page: str
    """The run's address on MLflow's pages; empty where it is not there."""

    @classmethod
    def of(cls, suite: str, run: Run, before: Averages, tolerance: float, page: str) -> "Ending":
        """Look at a run that has ended. before: the averages of the last run."""
        now = results.averages(results.read(suite))
        failures = [_last_lines(name, list(run.last_lines[name])) for name in run.failed]
        server = servers.running("MLflow")
        address = server.address if server else f"http://{HOST}:{PORTS['mlflow']}"
        return cls(
            suite,
            run.summary(),
            "\n\n".join(failures),
            tuple(falls(now, before, tolerance)),
            results.markdown_table(now, before),
            f"{address}/{page}" if page else "",
        )

    @property
    def message(self) -> str:
        """All of it as the text of a state, and of a notification."""
        return "\n\n".join(filter(None, [self.summary, "\n".join(self.falls), self.failures]))


def falls(now: Averages, before: Averages, tolerance: float) -> list[str]:
    """List the averages that fell by more than `tolerance`, in points, since those `before`."""
    return [
        f"{method}, {protocol}: {before[protocol, method]:.2f} -> {average:.2f} %"
        for (protocol, method), average in now.items()
        if (protocol, method) in before and before[protocol, method] - average > tolerance
    ]


def _last_lines(name: str, lines: list[str]) -> str:
    ticks = max([2, *(len(found) for line in lines for found in re.findall("`+", line))])
    fence = "`" * (ticks + 1)
    return "\n".join([f"{name} failed; its last lines:", fence, *lines, fence])


def show(ending: Ending) -> None:
    """Make the artifacts of the flow run that ends: results, failures, the link to MLflow."""
    key = re.sub(r"[^a-z0-9]+", "-", ending.suite.lower()).strip("-")
    if ending.table:
        fell = "".join(f"\n\nFell: {line}" for line in ending.falls)
        create_markdown_artifact(
            f"{ending.summary}{fell}\n\n{ending.table}",
            key=f"results-{key}",
            description=f"Results of {ending.suite}, and the change since the last run",
        )
    if ending.failures:
        create_markdown_artifact(
            ending.failures, key=f"failures-{key}", description="What the failed stages said last"
        )
    if ending.page:
        create_link_artifact(
            ending.page,
            link_text="the run in MLflow (while `adamerge ui` runs)",
            key=f"mlflow-{key}",
            description="Stages, curves, models and lineage of this run",
        )
