"""Runs in the MLflow store: found by their tags, made, and filled."""

import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from adamerge_core.atomic import atomic_write
from tasks.graph.dvc_yaml import is_code
from tasks.tracking.database import (
    ARTIFACTS,
    DATABASE,
    RefusedError,
    TrackingError,
    explain,
    keep_private,
    probe,
    relocate,
)
from tasks.tracking.found_run import FoundRun
from tasks.tracking.pages.run_page import TAG, batches, fit, flatten, metric_name, out_tag

# it tells of every table it makes, and prints the traceback of every error that it raises
logging.getLogger("mlflow").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)


_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def is_absent(error: MlflowException) -> bool:
    """Tell whether MLflow says that it has no such thing, or that nothing is called so."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextmanager
def explained() -> Iterator[None]:
    """Raise TrackingError, with a message for a user, for what MLflow raises."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        raise TrackingError(explain(error)) from error


def _make_database() -> None:
    """Make an empty database, elsewhere at first: a kill while MLflow makes its tables leaves
    some of them, and MLflow can then neither use the file nor mend it.
    """
    with tempfile.TemporaryDirectory() as folder, atomic_write(DATABASE) as temporary:
        made = Path(folder) / DATABASE.name
        address = f"sqlite:///{made}"
        MlflowClient(address, address).search_experiments()
        shutil.copyfile(made, temporary)


class Runs:
    """The runs of the project in the current folder."""

    def __init__(self) -> None:
        """Open the store, and make it where there is none. Raises TrackingError."""
        with explained():
            if not DATABASE.exists():
                _make_database()
        keep_private()
        probe(DATABASE)
        relocate(DATABASE)
        address = f"sqlite:///{DATABASE.resolve()}"  # MLflow keeps connections by address
        with explained():
            self.client = MlflowClient(address, address)
            self.client.search_experiments(max_results=1)  # opens it
        self._experiments: dict[str, str] = {}

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Raise RefusedError for what MLflow says of a value, not of its database."""
        try:
            yield
        except MlflowException as error:
            if error.error_code in _REFUSED:
                raise RefusedError(error.message) from error
            raise

    def has_run(self, run_id: str) -> bool:
        """Tell whether the store has this run, and no user has deleted it."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if is_absent(error):
                return False
            raise

    def find(self, outs: Mapping[str, str], signature: str | None = None) -> FoundRun | None:
        """Find the latest stage run that wrote `outs` (md5s by path), of this signature if one
        has it.
        """
        wrote = [f"tags.`{out_tag(path)}` = '{d}'" for path, d in list(outs.items())[:3]]
        if not wrote:
            return None
        exact = [f"tags.`{TAG}signature` = '{signature}'"] if signature else []
        for conditions in ([*wrote, *exact], wrote) if exact else (wrote,):
            found = self.search(" and ".join(conditions))
            if found:
                return FoundRun.of(found)
        return None

    def upstream(self, deps: Mapping[str, str]) -> dict[str, FoundRun]:
        """Find the run that wrote each dep; there is none for code, and for what no run wrote."""
        runs: dict[str, FoundRun] = {}
        for path, digest in deps.items():
            if is_code(path):
                continue
            tag = out_tag(path)
            known = next((run for run in runs.values() if run.tags.get(tag) == digest), None)
            found = known or self.find({path: digest})
            if found:
                runs[path] = found
        return runs

    def search(self, conditions: str) -> Run | None:
        """Find the latest run of any experiment with these tags."""
        found = self.client.search_runs(
            self.all_experiments(),
            conditions,
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return found[0] if found else None

    def children(self, parent: str) -> Sequence[Run]:
        """Find the stage runs of a pipeline's run."""
        experiment = self.client.get_run(parent).info.experiment_id
        conditions = f"tags.`mlflow.parentRunId` = '{parent}'"
        return self.client.search_runs([experiment], conditions, max_results=5000)

    def run_tagged(
        self, tag: str, key: str, event: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Find the run with this tag; make it if there is none."""
        found = self.search(f"tags.`{TAG}{tag}` = '{key}'")
        if found:
            return str(found.info.run_id)
        created = self.client.create_run(
            self.experiment(event["suite"]),
            start_time=int(event["time"] * 1000),
            tags={**tags, TAG + tag: key},
        )
        return str(created.info.run_id)

    def experiment(self, suite: str) -> str:
        """Find the id of the suite's experiment; make it if there is none."""
        if suite not in self._experiments:
            self.all_experiments()
        if suite not in self._experiments:
            where = ARTIFACTS.resolve().as_uri()
            kind = {"mlflow.experimentKind": "custom_model_development"}  # which pages it gets
            self._experiments[suite] = self.client.create_experiment(suite, where, kind)
        return self._experiments[suite]

    def all_experiments(self) -> list[str]:
        """List the ids of the store's experiments."""
        if not self._experiments:
            found = self.client.search_experiments()
            self._experiments = {each.name: each.experiment_id for each in found}
        return list(self._experiments.values())

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log nested parameters, with dotted names."""
        flat = [Param(metric_name(key), fit(value, 6000)) for key, value in flatten(params)]
        for batch in batches(flat, 100):
            self.client.log_batch(run_id, params=batch)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set all of these tags."""
        for batch in batches([RunTag(key, value) for key, value in tags.items()], 100):
            self.client.log_batch(run_id, tags=batch)

    def log_points(self, run_id: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Log points of metric curves; one that is there already is not added again."""
        metrics = [
            Metric(metric_name(name), value, int(point["time"] * 1000), point["step"])
            for point in points
            for name, value in point["values"].items()
        ]
        for batch in batches(metrics, 1000):
            self.client.log_batch(run_id, metrics=batch)

    def log_file(self, run_id: str, source: Path, name: str, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts under `name`."""
        if source.name == name:
            self.client.log_artifact(run_id, str(source), folder)
            return
        with tempfile.TemporaryDirectory() as temporary:  # from DVC's cache, named by its hash
            copy = Path(temporary) / name
            copy.write_bytes(source.read_bytes())
            self.client.log_artifact(run_id, str(copy), folder)
