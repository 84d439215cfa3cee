"""A run that was found in the MLflow store."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities import Run

from tasks.tracking.pages import addresses
from tasks.tracking.pages.run_page import CACHED, OUTS, READERS, READS, TAG, from_parts, prefixed


@dataclass(frozen=True)
class FoundRun:
    """A run of a stage or of a pipeline, as its tags tell it."""

    run_id: str
    experiment_id: str
    status: str
    start_ms: int
    end_ms: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> "FoundRun":
        info = run.info
        return cls(
            info.run_id,
            info.experiment_id,
            info.status,
            info.start_time,
            info.end_time,
            run.data.params,
            run.data.tags,
        )

    @property
    def page(self) -> str:
        """The address of the run's page below that of MLflow's server."""
        return addresses.run(self.experiment_id, self.run_id)

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it has no end."""
        return None if self.end_ms is None else (self.end_ms - self.start_ms) / 1000

    @property
    def stage(self) -> str:
        """The stage that ran; empty for a pipeline."""
        return self.fact("stage") or ""

    def upstream(self) -> list[str]:
        """Read from a stage run's tags the ids of the runs that wrote what it read."""
        return (self.fact("upstream") or "").split()

    def readers(self) -> dict[str, str]:
        """Read from a stage run's tags the runs that read what it wrote: by stage, the address of
        the page of the latest.
        """
        return from_parts(READERS, self.tags)

    def deps(self) -> dict[str, str]:
        """Read from the run's tags the md5s of what it read, by path."""
        return from_parts(READS, self.tags)

    def cached(self) -> dict[str, str]:
        """Read from a pipeline run's tags the stages that were up to date: by stage, the address of
        the page of the run that made its files, empty where none is recorded.
        """
        return from_parts(CACHED, self.tags)

    def outs(self) -> dict[str, str]:
        """Read from its tags the md5s of what it wrote, by path."""
        return prefixed(self.tags, OUTS)

    def fact(self, name: str) -> str | None:
        """Read what the pipeline noted on the run under `name`."""
        return self.tags.get(TAG + name)
