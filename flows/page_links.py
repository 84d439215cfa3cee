"""The pages that a person wants, by the servers that are up."""

from flows import servers
from tasks.graph import params_yaml
from tasks.tracking.pages import addresses

_FLOW_RUNS = "runs"


def of_project(mlflow: str | None, prefect: str | None) -> dict[str, str]:
    """List the pages of the active suite by what they show, on the servers at these addresses."""
    found = {}
    if mlflow:
        from tasks.tracking.runs import explained  # takes seconds
        from tasks.tracking.store import Store

        with explained():
            store = Store()
            experiment = store.experiment(params_yaml.suite_name())
            last = store.last_pipeline()
        found["runs"] = f"{mlflow}/{addresses.runs(experiment)}"
        if last:
            found["last run"] = f"{mlflow}/{last.page}"
            found["its graph"] = f"{mlflow}/{addresses.graph(last.run_id)}"
        found["merged models"] = f"{mlflow}/{addresses.models(experiment)}"
        found["registry"] = f"{mlflow}/{addresses.registry()}"
    if prefect:
        found["flow runs"] = f"{prefect}/{_FLOW_RUNS}"
    return found


def served(name: str) -> str | None:
    """Find the address of this project's server `MLflow` or `Prefect`; None where none is up."""
    server = servers.running(name)
    return server.address if server else None


def written(pages: dict[str, str]) -> str:
    """Write pages a line each."""
    return "\n".join(f"  {name:<14} {address}" for name, address in pages.items())
