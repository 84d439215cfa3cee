"""MLflow's first page with what a person would set first: its mode for runs, nothing in the way.

MLflow opens in its mode for generative AI, beside an assistant that this server does not serve, and
under an announcement of its registry. A browser keeps such settings; those that it has not yet are
set before MLflow's own script reads them.
"""

import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

SETTINGS = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "_mlflow_model_registry_promo_modal_dismissed_v1": True,
}
"""Names as MLflow's script has them in the browser's local storage, with their versions."""

NO_GATEWAY = "/ajax-api/2.0/mlflow/gateway-proxy"

_SCRIPT = (
    "<script>"
    f"for (const [name, value] of Object.entries({json.dumps(SETTINGS)}))"
    " if (localStorage.getItem(name) === null) localStorage.setItem(name, JSON.stringify(value));"
    "</script>"
)


def first_page(index: str) -> str:
    """Put the settings before the first script of MLflow's index.html."""
    return index.replace("<script", f"{_SCRIPT}<script", 1)


def routes(static: Path) -> list[Route]:
    """Make the routes of the first page and of what it asks the gateway, which is not served: the
    list of its endpoints, always empty. static: the folder with MLflow's index.html.
    """

    async def first(request: Request) -> HTMLResponse:
        return HTMLResponse(first_page((static / "index.html").read_text("utf-8")))

    async def no_endpoints(request: Request) -> JSONResponse:
        return JSONResponse({"endpoints": []})

    return [Route("/", first, methods=["GET", "HEAD"]), Route(NO_GATEWAY, no_endpoints)]
