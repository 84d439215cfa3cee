"""What the room of servers shares: both servers, requests of any form, a second user."""

import base64
import encodings.idna  # noqa: F401 - the second user cannot read it then
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.cases import FaultError

ROOT = Path(__file__).parents[3]

NOBODY = 65534


@dataclass(frozen=True)
class Served:
    """A project whose pages are served."""

    folder: Path
    prefect: int
    mlflow: int
    pid: int

    @property
    def secret(self) -> str:
        return (self.folder / ".adamerge/secret").read_text().strip()

    def login(self, port: int) -> tuple[str, str]:
        """The header of one who knows the secret."""
        given = self.secret if port == self.prefect else f"me:{self.secret}"
        return "Authorization", f"Basic {base64.b64encode(given.encode()).decode()}"


@dataclass(frozen=True)
class Answer:
    """What a server answered: status 0 if it closed the connection without a word."""

    status: int
    body: str


def ports(count: int) -> list[int]:
    """Free ports, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


def environment() -> dict[str, str]:
    """Like that of a user's shell: this code, no settings of a test's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """`adamerge ui` in the folder, which others may enter, until both servers answer."""
    folder.chmod(0o755)
    (folder / "dvc.yaml").touch()  # what makes a folder a project
    prefect, mlflow = ports(2)
    arguments = ["ui", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                yield Served(folder, prefect, mlflow, process.pid)
                return
        raise FaultError(f"`adamerge ui` ended:\n{printed}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def ask(
    port: int,
    method: str = "GET",
    path: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    host: str | None = None,
) -> Answer:
    """Send bytes as they are; `host` is the server's own unless given, "" is none."""
    own = f"127.0.0.1:{port}" if host is None else host
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {own}"] if own else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method in ("POST", "PUT", "PATCH", "DELETE"):
        lines.append(f"Content-Length: {len(body)}")
    if not any(name.lower() == "connection" for name, _ in headers):
        lines.append("Connection: close")
    raw = "\r\n".join([*lines, "", ""]).encode("utf-8", errors="surrogateescape") + body
    return send(port, raw)


def send(port: int, raw: bytes, seconds: float = 30.0) -> Answer:
    """Send what may be no HTTP at all; read until the server closes, or to its first silence."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(raw)
            while chunk := connection.recv(65536):
                data += chunk
                if data.startswith(b"HTTP/1.1 101"):
                    connection.settimeout(0.5)
        except (TimeoutError, ConnectionError):
            pass
    found = re.match(rb"HTTP/1\.[01] (\d{3})", data)
    return Answer(int(found[1]) if found else 0, data.decode(errors="replace"))


def handshake(path: str, port: int, headers: Sequence[tuple[str, str]], frame: str = "") -> bytes:
    """The request that opens a websocket, and one text frame after it."""
    own = dict(headers).get("Host", f"127.0.0.1:{port}")
    lines = [f"GET {path} HTTP/1.1", f"Host: {own}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    lines += [f"{name}: {value}" for name, value in headers if name != "Host"]
    raw = "\r\n".join([*lines, "", ""]).encode()
    payload = frame.encode()
    mask = b"\0\0\0\0"
    size = (
        bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    )
    return raw + (b"\x81" + size + mask + payload if payload else b"")


def as_nobody(what: Callable[[], str | None]) -> str | None:
    """Do something as another user of the machine; its answer is a fault seen, or None."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(theirs, (what() or "").encode())
        except BaseException as error:
            os.write(theirs, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as answer:
        return answer.read() or None


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something. Raises FaultError if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise FaultError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)
