"""What a command trusts: an impostor on the server's port, a proxy."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from flows import servers
from tasks.running import processes
from tasks.running.environment import work_folder
from tests.attacks.cases import Case, FaultError

BAD_RECORDS = ("", "[]", "{}", '{"port": "x"}', "impostor", "dead", "other start")


def _bad_record(text: str, folder: Path) -> None:
    """An impostor answers on the recorded port: it is not taken for this project's server."""
    work_folder()
    with _Impostor() as (port, heard):
        facts = {"port": port, **processes.process_facts(os.getppid())}
        dead = {**facts, "pid": 2**22 + 1}
        other = {**facts, "pid_started": "00000000-1"}
        known = {"impostor": {"port": port}, "dead": dead, "other start": other}
        servers.record_path("Prefect").write_text(
            json.dumps(known[text]) if text in known else text
        )
        if servers.running("Prefect") is not None:
            raise FaultError("an impostor is taken for the project's server")
        if heard:
            raise FaultError(f"was asked: {heard}")


def _proxy(folder: Path) -> None:
    with _Impostor() as (port, heard):
        os.environ.update(
            {"http_proxy": f"http://127.0.0.1:{port}", "no_proxy": "", "NO_PROXY": ""}
        )
        if servers._answers("http://127.0.0.1:9/api/health"):
            raise FaultError("answers by a proxy")
        servers.use_prefect(servers.Server("Prefect", 9, "/api/health"))
        import httpx

        with suppress(httpx.ConnectError):
            httpx.get("http://127.0.0.1:9/", headers={"x": os.environ["PREFECT_API_AUTH_STRING"]})
        if heard:
            raise FaultError(f"a proxy was sent {heard}")


class _Impostor:
    """Answers 200 to everything, and keeps what it was sent."""

    def __enter__(self) -> tuple[int, list[str]]:
        import threading
        from http.server import BaseHTTPRequestHandler, HTTPServer

        heard: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.path} {self.headers}")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1]), heard

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for record in BAD_RECORDS:
        yield Case(f"record of a server: {record}", partial(_bad_record, record), "critical")
    yield Case("a proxy is not asked", _proxy, "critical")
