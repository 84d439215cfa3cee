"""The page that this project's MLflow server adds to MLflow's: the graph of a pipeline's run.

MLflow shows an HTML artifact in a frame that no link leads out of; here it stands alone. It is
sandboxed: whatever the file holds, it acts as nobody and asks this server for nothing.
"""

import re

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from tasks.tracking.database import ARTIFACTS
from tasks.tracking.pages.run_page import GRAPH

PATH = re.compile(r"/adamerge/runs/[0-9a-f]{32}/graph")

_POLICY = (
    "sandbox allow-scripts allow-top-navigation; default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


async def _graph(request: Request) -> Response:
    run_id = request.path_params["run_id"]
    path = ARTIFACTS / run_id / "artifacts" / GRAPH
    if not PATH.fullmatch(request.url.path) or not path.is_file():
        return PlainTextResponse("this run has no graph: it is no pipeline's, or at work", 404)
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": _POLICY})


def route() -> Route:
    """Make the route of the page."""
    return Route("/adamerge/runs/{run_id}/graph", _graph, methods=["GET", "HEAD"])
