"""`adamerge schedule`: Prefect's server, the deployments of prefect.yaml, and their worker."""

import os
import sys
import time
from typing import TYPE_CHECKING

from adamerge_core.errors import InputError
from flows import servers
from flows.notify import NOTIFY
from flows.notify import check as check_notify
from flows.suites import check

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

    from flows.deployments import Deployment
    from flows.worker import Worker

_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
_PAUSE = 2.0  # seconds between two looks at what is due


def schedule(port: int, *, now: bool, automations: bool, notify_with: str | None) -> int:
    """Serve the deployments of prefect.yaml, if the active suite's files fit.

    automations: whether Prefect's server carries out automations; notify_with: a command that is
    run when a run fails, or accuracies fall.
    """
    if notify_with is not None:
        os.environ[NOTIFY] = check_notify(notify_with)
    check()
    return serve(port, now=now, automations=automations)


def serve(port: int, *, now: bool, automations: bool = False) -> int:
    """Serve until Ctrl-C (then 0). Raises ServerError when Prefect's server ends by itself."""
    server = servers.prefect(port, pages=True, automations=automations)
    worker = None
    try:
        servers.use_prefect(server)
        os.environ.update(_QUIET)
        from prefect.client.orchestration import get_client

        from flows.worker import Worker

        server.wait()
        with server.needed(), get_client(sync_client=True) as client:
            changed, ids = _changed(), _deploy(client)
            if not ids:
                raise InputError(
                    "nothing is scheduled: adamerge schedule add NAME --cron '0 2 * * *'"
                )
            if now:
                first = next(iter(ids))
                client.create_flow_run_from_deployment(first)
                print(f"{ids[first].name}: one run now")
            worker = Worker(client, ids)
            _announce(server)
            while True:
                if (last := _changed()) != changed:
                    changed = last
                    _take_up(client, worker)
                worker.turn()
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        return 0
    finally:
        if worker:
            worker.stop()
        server.stop()


def _changed() -> int:
    """Say when prefect.yaml was last changed."""
    from flows.deployments import PREFECT_YAML

    try:
        return PREFECT_YAML.stat().st_mtime_ns
    except OSError:
        return 0


def _deploy(client: "SyncPrefectClient") -> "dict[UUID, Deployment]":
    """Have Prefect's server know what prefect.yaml deploys, and nothing else; say when it runs."""
    from flows import deployments, schedules

    found = deployments.read().values()
    ids = {deployments.deploy(client, each): each for each in found}
    for name in deployments.remove_others(client, set(ids)):
        print(f"deployment {name!r}: removed, {deployments.PREFECT_YAML} does not have it")
    for each in found:
        print(f"{each.name}: {schedules.line(each)}")
    return ids


def _take_up(client: "SyncPrefectClient", worker: "Worker") -> None:
    """Go on with the changed prefect.yaml; with the one before where it has faults."""
    try:
        worker.serve(_deploy(client))
    except InputError as error:
        print(f"adamerge: {error}\nwhat was deployed before goes on", file=sys.stderr)
    sys.stdout.flush()


def _announce(server: servers.Server) -> None:
    print(f"Prefect  {server.address}/deployments")
    print(servers.LOGIN)
    print("Ctrl-C ends the worker and the server; no run starts without them", flush=True)
