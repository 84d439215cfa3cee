"""`python -m tasks.tracking.server PORT DESCRIPTOR`: MLflow's server of this project.

MLflow's own app over mlflow.db and mlartifacts/, behind the gate, which asks for the project's
secret. It serves runs, experiments and models, and two pages of this project's own (graph_route,
first_page). What MLflow has beyond them would have the server send requests (gateway, webhooks,
traces' judges), start programs (jobs, the assistant) or write files, and the pipeline uses none of
it.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from tasks.running.environment import configure
from tasks.running.gate import serve
from tasks.running.secret import project_secret
from tasks.tracking.database import ARTIFACTS, DATABASE, keep_private
from tasks.tracking.pages import first_page, graph_route

_PAGES = re.compile(
    r"/|/favicon\.ico|/health|/version|/graphql|/get-artifact|/model-versions/get-artifact"
    r"|/(static-files|build)/.+"
)
_READ = re.compile(r"/(ajax-)?api/2\.0/mlflow-artifacts/artifacts(/.*)?")
_API = re.compile(
    r"/(ajax-)?api/[23]\.0/mlflow/"
    r"(server-info|artifacts/list|get-trace-artifact"
    r"|(experiments|runs|metrics|registered-models|model-versions|logged-models|datasets)(/.*)?)"
)
_PAGES_FOLDER = "js/build"  # below MLflow's server
_NOT_SERVED = re.compile(r".*/runs/create-promptlab-run")


def served(method: str, path: str) -> bool:
    """Whether a request is for runs, experiments, models or a run's graph; artifacts can be read,
    not written.
    """
    if _READ.fullmatch(path):
        return method in ("GET", "HEAD")
    if graph_route.PATH.fullmatch(path):
        return method in ("GET", "HEAD")
    if path == first_page.NO_GATEWAY:
        return method == "GET"  # answered by this project
    if _PAGES.fullmatch(path):
        return method in ("GET", "HEAD") or path == "/graphql"
    return bool(_API.fullmatch(path)) and not _NOT_SERVED.fullmatch(path)


def app() -> Any:
    """Make MLflow's app over this project's database, with its stores bound to the project."""
    os.environ.update(_settings())
    from mlflow.server import app as flask_app
    from mlflow.server import handlers
    from mlflow.server.fastapi_app import app as made

    from tasks.tracking.bound_stores import bound_models, bound_runs

    handlers._tracking_store_registry.register("sqlite", bound_runs)
    handlers._model_registry_store_registry.register("sqlite", bound_models)
    # before MLflow's own, which end in a catch-all
    static = Path(flask_app.root_path) / _PAGES_FOLDER
    made.router.routes[:0] = [graph_route.route(), *first_page.routes(static)]
    return made


def _settings() -> dict[str, str]:
    """Set what `mlflow server` sets: these variables are how its app is told."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{DATABASE.resolve()}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(ARTIFACTS.resolve()),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def main(port: int, descriptor: int) -> None:
    """Serve until a signal."""
    configure()
    keep_private()
    secret = project_secret()
    serve(app(), port, descriptor, secret=secret, open_paths=("/health",), served=served)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
