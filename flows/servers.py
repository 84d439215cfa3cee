"""Prefect's and MLflow's servers of this project, on 127.0.0.1 only."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from flows import guard
from tasks.running import processes
from tasks.running.environment import HOST, WORK, work_folder
from tasks.running.failures import OperationError
from tasks.running.json_files import read_object
from tasks.running.secret import SECRET, project_secret

LOGIN = f"login    once a browser; any user name, and the password that `cat {SECRET}` prints"

_LOG = WORK / "prefect-server.log"
_HEALTH = {"Prefect": "/api/health", "MLflow": "/health"}
_GOES_ON = "what was done until then is kept, and the same command goes on from here"
_START_SECONDS = 300.0  # of a busy machine
_SILENT_SECONDS = 60.0  # without an answer: it hangs; stages may take all cores for a while
_STARTED: list["subprocess.Popen[str]"] = []
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_WAITING = 2048  # connections that the system takes before the server does


class ServerError(OperationError):
    """A server did not start; the message says where its log is."""


class EndedError(ServerError):
    """A server ended, or hung, before what needed it did."""


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

    def ended(self) -> bool:
        """Whether its process is gone; one that another command started is known by its answers."""
        return self.process is not None and self.process.poll() is not None

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Interrupt what is done within, when the server ends or hangs; call it in the main thread.

        Raises EndedError then, whatever the interruption led to.
        """
        over, gone = threading.Event(), threading.Event()

        def watch() -> None:
            answered = time.monotonic()
            while not over.wait(1.0):
                if _answers(self.address + self.health):
                    answered = time.monotonic()
                elif self.ended() or time.monotonic() - answered > _SILENT_SECONDS:
                    gone.set()
                    logging.disable()  # Prefect's, of all that it cannot send
                    if self.process:  # what hangs would let its clients wait
                        self.process.kill()
                        self.process.wait()
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return

        before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
        threading.Thread(target=watch, name=f"watch {self.name}", daemon=True).start()
        try:
            yield
        except BaseException as error:
            failed = isinstance(error, Exception) and not _answers(self.address + self.health)
            if gone.is_set() or self.ended() or failed:
                raise EndedError(
                    f"{self.name}'s server ended ({self.log or 'another adamerge had it'}): "
                    + _GOES_ON
                ) from error
            raise
        finally:
            over.set()
            signal.signal(signal.SIGUSR1, before)


def prefect(port: int | None, *, pages: bool, automations: bool = False) -> Server:
    """Return this project's Prefect server: the one that runs, else a new one on `port`.

    Without a port, on any that is free. `pages` says whether a new one serves Prefect's pages,
    `automations` whether it carries automations out. Does not wait until it answers. Raises
    InputError where the one that runs does not carry them out.
    """
    found = running("Prefect")
    if found and automations:
        raise InputError(
            f"--automations: Prefect's server of another command is at work on port {found.port}; "
            "end that command first"
        )
    if found:
        return found
    listening = _listen(port, "Prefect", "--prefect-port")
    options = [name for name, on in (("pages", pages), ("automations", automations)) if on]
    server = _start("Prefect", "flows.prefect_server", listening, options)
    if pages:
        _record(server)
    return server


def mlflow(port: int) -> Server:
    """Start an MLflow server over this project's database. Does not wait until it answers."""
    listening = _listen(port, "MLflow", "--mlflow-port")
    server = _start("MLflow", "tasks.tracking.server", listening, [])
    _record(server)
    return server


def use_prefect(server: Server) -> None:
    """Have this process, and its children, talk to `server`; call it before prefect is imported."""
    os.environ["PREFECT_API_URL"] = f"{server.address}/api"
    os.environ["PREFECT_API_AUTH_STRING"] = project_secret()
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "2")  # it is on this machine, or gone
    for name in ("no_proxy", "NO_PROXY"):  # a proxy would be sent the secret
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))


def leave_if_silent() -> None:
    """End this process at once if the Prefect server that it uses does not answer.

    For the end of a flow that was interrupted: Prefect would try for minutes to tell the server,
    in the engine, in threads and at the exit of the process, and hear no signal meanwhile.
    """
    address = os.environ.get("PREFECT_API_URL")
    if address and not _answers(f"{address}/health"):
        leave(f"Prefect's server does not answer any more ({_LOG}): {_GOES_ON}")


def leave(message: str) -> NoReturn:
    """Print a message and end this process, without what waits to be sent to a server."""
    print(f"adamerge: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    for process in _STARTED:  # one that is stopped does not see its parent end
        process.kill()
    os._exit(1)


def _start(name: str, module: str, listening: socket.socket, arguments: list[str]) -> Server:
    """Start a server on a socket that listens already, so that no other process can be there."""
    log, port = work_folder() / f"{name.lower()}-server.log", int(listening.getsockname()[1])
    with listening, log.open("w") as file:
        process = guard.start(
            [module, str(port), str(listening.fileno()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[listening.fileno()],
        )
    _STARTED.append(process)
    return Server(name, port, _HEALTH[name], process, log)


def record_path(name: str) -> Path:
    """Name the file that says where this project's server `name` answers."""
    return WORK / f"{name.lower()}-server.json"


def _record(server: Server) -> None:
    """Write down where a server with pages answers, for other commands of this project."""
    if server.process is None:
        return
    about = {"port": server.port, "root": str(Path.cwd().resolve())}
    about |= processes.process_facts(server.process.pid)
    with atomic_write(record_path(server.name)) as temporary:
        temporary.write_text(json.dumps(about))


def running(name: str) -> Server | None:
    """Find this project's server with pages, `Prefect` or `MLflow`, that a process has started."""
    about = read_object(record_path(name))
    port, root = about.get("port"), about.get("root")
    # that of another folder is a copy's, of the project that it was copied from
    if not isinstance(port, int) or root != str(Path.cwd().resolve()):
        return None
    server = Server(name, port, _HEALTH[name])
    # its process has held the port from before it was recorded, so nobody else answers there
    if processes.is_alive(about) and _answers(server.address + server.health):
        return server
    return None


def _listen(port: int | None, name: str, option: str) -> socket.socket:
    """Listen on a port; without one, on any that is free. Raises InputError, with the way out."""
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"{option} {port}: a port is a number from 1 to 65535")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port or 0))
        listening.listen(_WAITING)
    except PermissionError as error:
        listening.close()
        raise InputError(
            f"{option} {port}: only root may use a port below 1024; choose a higher one"
        ) from error
    except OSError as error:
        listening.close()
        if port is None:
            raise ServerError(f"{name} finds no free port on {HOST} ({error})") from error
        raise InputError(
            f"{option} {port}: {name} needs a free port, and this one is in use{_by(port)}; "
            f"end that, or choose another: {option} {port + 1}"
        ) from error
    return listening


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
        with _DIRECT.open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _last_lines(log: Path | None) -> str:
    if log is None or not log.is_file():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-5:]
    return "\n".join(f"  {line}" for line in lines)
