"""`adamerge schedule`: Prefect's server, the deployment of prefect.yaml, and a worker that runs
it.
"""

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError
from flows import guard, servers
from flows.servers import ServerError
from flows.suites import check

PREFECT_YAML = Path("prefect.yaml")

_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def schedule(port: int, *, now: bool) -> int:
    """Serve the active suite's pipeline, if its files fit."""
    check()
    return serve(port, now=now)


def serve(port: int, *, now: bool) -> int:
    """Serve until Ctrl-C (then 0), or until the server or the worker ends by itself (then 1)."""
    deployment = _deployment()
    server = servers.prefect(port, pages=True)
    started = [server.process] if server.process else []
    try:
        server.wait()
        servers.use_prefect(server)
        pool = str(deployment["work_pool"]["name"])
        _prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
        _prefect("--no-prompt", "deploy", "--name", str(deployment["name"]))
        if now:
            _prefect("deployment", "run", f"pipeline/{deployment['name']}")
        started.append(_worker(pool))
        _announce(deployment, server, now=now)
        while all(process.poll() is None for process in started):
            time.sleep(0.5)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for process in reversed(started):
            guard.stop(process)


def _deployment() -> dict[str, Any]:
    """Read the deployment in prefect.yaml."""
    try:
        return dict(yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))["deployments"][0])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{PREFECT_YAML} in {Path.cwd()} has no deployment ({error}): "
            f"bring the file back with `git checkout {PREFECT_YAML}`"
        ) from error


def _worker(pool: str) -> subprocess.Popen[str]:
    """Run what is due, one flow run at a time; its output is that of the flow runs."""
    arguments = ["worker", "start", "--pool", pool, "--limit", "1", "--name", "adamerge"]
    return guard.start(["prefect", *arguments], more=_QUIET, stdin=subprocess.DEVNULL)


def _prefect(*arguments: str) -> None:
    """Run Prefect's own command; say what went wrong if it fails."""
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(
        command, env=guard.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        last = "\n".join(f"  {line}" for line in said[-8:])
        raise ServerError(f"`prefect {' '.join(arguments)}` failed:\n{last}")


def _announce(deployment: dict[str, Any], server: servers.Server, *, now: bool) -> None:
    for entry in deployment.get("schedules", []):
        when = _next(entry["cron"], entry.get("timezone", "UTC"))
        print(f"{deployment['name']}: next at {when} ({entry['cron']}, {PREFECT_YAML})")
    if now:
        print(f"{deployment['name']}: one run now")
    print(f"Prefect  {server.address}/deployments")
    print("Ctrl-C ends the worker and the server; no run starts without them", flush=True)


def _next(cron: str, timezone: str) -> str:
    from anyio import run
    from prefect.server.schemas.schedules import CronSchedule

    async def first() -> datetime:
        return (await CronSchedule(cron=cron, timezone=timezone).get_dates(1))[0]

    return run(first).strftime("%Y-%m-%d %H:%M %Z")
