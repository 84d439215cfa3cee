"""MLflow's stores as its server uses them: nothing made there leads out of the project."""

import re
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

_OURS = ("file:", "runs:", "models:", "mlflow-artifacts:")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.*", re.DOTALL)


class BoundRuns(RunStore):
    """Runs whose artifacts are in the project's mlartifacts/."""

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> str:
        """Make an experiment without a location of its own. Raises MlflowException for one."""
        if artifact_location:
            raise MlflowException(
                f"artifact_location {artifact_location!r}: this server keeps artifacts in the "
                "project's mlartifacts/ alone; leave it out",
                INVALID_PARAMETER_VALUE,
            )
        return str(super().create_experiment(name, None, tags))


class BoundModels(ModelStore):
    """Models whose files are artifacts of the project's runs."""

    def create_model_version(self, name: str, source: str, *rest: Any, **more: Any) -> Any:
        """Make a version of a run's or a logged model's files; MLflow's handler bounds local paths.

        Raises MlflowException for an address from which the server would download.
        """
        if _ADDRESS.fullmatch(source) and not source.startswith(_OURS):
            raise MlflowException(
                f"source {source!r}: this server has models of the project's runs alone; give "
                "models:/<id> or runs:/<id>/<path>",
                INVALID_PARAMETER_VALUE,
            )
        return super().create_model_version(name, source, *rest, **more)


def bound_runs(store_uri: str, artifact_uri: str) -> BoundRuns:
    """Open the store of runs, as MLflow's server asks for it."""
    return BoundRuns(store_uri, artifact_uri)


def bound_models(store_uri: str) -> BoundModels:
    """Open the store of models, as MLflow's server asks for it."""
    return BoundModels(store_uri)
