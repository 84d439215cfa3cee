"""`adamerge schedule`: Prefect's server, the deployments of prefect.yaml, and their worker."""

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flows import servers
from flows.suites import check

if TYPE_CHECKING:
    from flows.deployments import Deployment

_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
_PAUSE = 2.0  # seconds between two looks at what is due


def schedule(port: int, *, now: bool) -> int:
    """Serve the active suite's pipeline, if its files fit."""
    check()
    return serve(port, now=now)


def serve(port: int, *, now: bool) -> int:
    """Serve until Ctrl-C (then 0). Raises ServerError when Prefect's server ends by itself."""
    server = servers.prefect(port, pages=True)
    worker = None
    try:
        servers.use_prefect(server)
        os.environ.update(_QUIET)
        from prefect.client.orchestration import get_client

        from flows import deployments
        from flows.worker import Worker

        found = deployments.read().values()
        server.wait()
        with server.needed(), get_client(sync_client=True) as client:
            ids = {deployments.deploy(client, each): each for each in found}
            for name in deployments.remove_others(client, set(ids)):
                print(f"deployment {name!r}: removed, {deployments.PREFECT_YAML} does not have it")
            if now:
                client.create_flow_run_from_deployment(next(iter(ids)))
            worker = Worker(client, ids)
            _announce(found, server, now=now)
            while True:
                worker.turn()
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        return 0
    finally:
        if worker:
            worker.stop()
        server.stop()


def _announce(found: "Iterable[Deployment]", server: servers.Server, *, now: bool) -> None:
    for deployment in found:
        for each in deployment.schedules:
            when = each.next().strftime("%Y-%m-%d %H:%M %Z")
            print(f"{deployment.name}: next at {when} ({each.cron}, prefect.yaml)")
    if now:
        print(f"{next(iter(found)).name}: one run now")
    print(f"Prefect  {server.address}/deployments")
    print(servers.LOGIN)
    print("Ctrl-C ends the worker and the server; no run starts without them", flush=True)
