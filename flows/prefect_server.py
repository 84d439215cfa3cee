"""`python -m flows.guard flows.prefect_server PORT DESCRIPTOR OPTION...`: this project's Prefect.

Prefect's own app, behind the gate, on a socket that the parent listens on; it asks for the
project's secret, and its pages ask for it once a browser.
"""

import os
import sys
from collections.abc import Sequence

from tasks.running.environment import configure
from tasks.running.gate import serve
from tasks.running.secret import project_secret

_SERVICES = "PREFECT_SERVER_SERVICES_"

_SETTINGS = {
    # the records of task runs reach the database soon, in batches; a fraction of a second would
    # become 0 in the server and keep a core busy
    _SERVICES + "TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    _SERVICES + "TASK_RUN_RECORDER_BATCH_SIZE": "100",
    _SERVICES + "TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
}

# automations, which call addresses and start runs by themselves: where the user asks for them
_AUTOMATIONS = "TRIGGERS"

# services that nothing here needs: work pools; and schedules, which the worker of `adamerge
# schedule` has from prefect.yaml
_OFF = (
    "FOREMAN",
    "CLEANUP_RECONCILER",
    "SCHEDULER",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "CANCELLATION_CLEANUP",
)
_OFF_WITHOUT_PAGES = ("REPOSSESSOR", "DB_VACUUM")


def settings(port: int, *, pages: bool, automations: bool) -> dict[str, str]:
    """Compute Prefect's settings for a server on `port`."""
    found = {
        **_SETTINGS,
        "PREFECT_SERVER_API_AUTH_STRING": project_secret(),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
        "PREFECT_SERVER_UI_ENABLED": str(pages).lower(),
        "PREFECT_SERVER_UI_API_URL": "/api",  # by whichever name the page was opened
    }
    off = [*_OFF, *([] if pages else _OFF_WITHOUT_PAGES), *([] if automations else [_AUTOMATIONS])]
    return found | {f"{_SERVICES}{name}_ENABLED": "false" for name in off}


def main(port: int, descriptor: int, options: Sequence[str]) -> None:
    """Serve until a signal. options: of `pages` and `automations`."""
    configure()
    wanted = {name: name in options for name in ("pages", "automations")}
    os.environ.update(settings(port, **wanted))
    from prefect.server.api.server import create_app

    serve(create_app(final=True), port, descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
