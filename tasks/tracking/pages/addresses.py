"""Addresses of MLflow's pages below that of its server, and of Prefect's pages of a flow run."""

from tasks.running.environment import HOST, PORTS

# without it MLflow opens in its mode for generative AI, where no run is to be seen
_MODE = "?workflowType=machine_learning"


def run(experiment_id: str, run_id: str) -> str:
    """Name the page of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{_MODE}"


def runs(experiment_id: str) -> str:
    """Name the page with the runs of an experiment."""
    return f"#/experiments/{experiment_id}/runs{_MODE}"


def models(experiment_id: str) -> str:
    """Name the page with the logged models of an experiment."""
    return f"#/experiments/{experiment_id}/models{_MODE}"


def registry() -> str:
    """Name the page with the registered models."""
    return f"#/models{_MODE}"


def registered(name: str) -> str:
    """Name the page with the versions of a registered model."""
    return f"#/models/{name}{_MODE}"


def graph(run_id: str) -> str:
    """Name the page with the graph of a pipeline run, which this project's server adds."""
    return f"adamerge/runs/{run_id}/graph"


def artifact(experiment_id: str, run_id: str, path: str) -> str:
    """Name the page that shows an artifact of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}{_MODE}"


def flow_run(flow_run_id: str) -> str:
    """Write the address of a flow run on Prefect's pages, as `adamerge ui` serves them."""
    return f"http://{HOST}:{PORTS['prefect']}/runs/flow-run/{flow_run_id}"
