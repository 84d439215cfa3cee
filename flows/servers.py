"""Prefect's and MLflow's servers of this project, on 127.0.0.1 only."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from flows import guard
from tasks.running import processes
from tasks.running.environment import WORK
from tasks.running.failures import OperationError
from tasks.running.json_files import read_object
from tasks.tracking.database import ARTIFACTS, DATABASE

HOST = "127.0.0.1"

_RECORD = WORK / "prefect-server.json"
_START_SECONDS = 120.0

# the records of task runs reach the database soon, in batches; a fraction of a second would become
# 0 in the server and keep a core busy
_PREFECT_SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
}


class ServerError(OperationError):
    """A server did not start; the message says where its log is."""


@dataclass
class Server:
    """A server that this process started, or one that was there (without a process)."""

    name: str
    port: int
    health: str
    process: subprocess.Popen[str] | None = None
    log: Path | None = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def wait(self) -> None:
        """Wait until it answers. Raises ServerError if it ends before, or takes too long."""
        until = time.monotonic() + _START_SECONDS
        while not _answers(self.address + self.health):
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise ServerError(
                    f"{self.name} did not start on port {self.port}; its log, {self.log}, ends\n"
                    + _last_lines(self.log)
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server, if this process started it."""
        if self.process:
            guard.stop(self.process)


def prefect(port: int | None, *, pages: bool) -> Server:
    """Return this project's Prefect server: the one that runs, else a new one on `port`.

    Without a port, on any that is free. `pages` says whether a new one serves Prefect's pages. Does
    not wait until it answers.
    """
    running = _recorded()
    if running:
        return running
    chosen = free_port() if port is None else port
    _check_free(chosen, "Prefect", "--prefect-port")
    arguments = ["server", "start", "--host", HOST, "--port", str(chosen)]
    if not pages:
        arguments.append("--no-ui")
    server = _start("Prefect", ["prefect", *arguments], chosen, "/api/health", _PREFECT_SETTINGS)
    if pages and server.process:
        root = str(Path.cwd().resolve())
        about = {"port": chosen, "root": root, **processes.process_facts(server.process.pid)}
        with atomic_write(_RECORD) as temporary:
            temporary.write_text(json.dumps(about))
    return server


def mlflow(port: int) -> Server:
    """Start an MLflow server over this project's database. Does not wait until it answers."""
    _check_free(port, "MLflow", "--mlflow-port")
    database, artifacts = DATABASE.resolve(), ARTIFACTS.resolve()
    arguments = ["server", "--host", HOST, "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{database}"]
    arguments += ["--artifacts-destination", str(artifacts)]
    return _start("MLflow", ["mlflow", *arguments], port, "/health", {})


def use_prefect(server: Server) -> None:
    """Have this process, and its children, talk to `server`; call it before prefect is imported."""
    os.environ["PREFECT_API_URL"] = f"{server.address}/api"


def _start(
    name: str, command: list[str], port: int, health: str, settings: dict[str, str]
) -> Server:
    WORK.mkdir(exist_ok=True)
    log = WORK / f"{name.lower()}-server.log"
    with log.open("w") as file:
        process = guard.start(
            command,
            more=settings,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Server(name, port, health, process, log)


def _recorded() -> Server | None:
    """Find the server with pages that another process of this project has started."""
    about = read_object(_RECORD)
    port, root = about.get("port"), about.get("root")
    # that of another folder is a copy's, of the project that it was copied from
    if not isinstance(port, int) or root != str(Path.cwd().resolve()):
        return None
    server = Server("Prefect", port, "/api/health")
    if processes.is_alive(about) and _answers(server.address + server.health):
        return server
    return None


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int, name: str, option: str) -> None:
    if not 1 <= port <= 65535:
        raise InputError(f"{option} {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise InputError(
                f"{option} {port}: only root may use a port below 1024; choose a higher one"
            ) from error
        except OSError as error:
            raise InputError(
                f"{option} {port}: {name} needs a free port, and this one is in use{_by(port)}; "
                f"end that, or choose another: {option} {port + 1}"
            ) from error


def _by(port: int) -> str:
    """Write ` by process 123 (name)`, or nothing where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _last_lines(log: Path | None) -> str:
    if log is None or not log.is_file():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-5:]
    return "\n".join(f"  {line}" for line in lines)
