"""The room of the servers: forged requests, the secret, prefect.yaml, a server that dies.

The browser, the second user and planted deployments are in server_guests.
"""

import itertools
import json
import multiprocessing
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from flows import deployments, servers
from tasks.running import processes
from tasks.running.environment import WORK, work_folder
from tasks.running.gate import Gate
from tasks.running.secret import SECRET, project_secret
from tests.attacks import server_ends, server_guests
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.served import NOBODY, Served, serving
from tests.attacks.server_requests import FOREIGN_HOSTS, FOREIGN_ORIGINS, SERVED


def cases() -> Iterator[Case]:
    """All of the room, the quick ones first."""
    for damage, name in BAD_SECRETS.items():
        yield Case(f"secret: {name}", partial(_bad_secret, damage), "critical")
    yield Case("secret: made by eight at once, with no umask", _secret_at_once, "high")
    yield Case("secret: a folder that others may enter", _wide_folder, "critical")
    yield Case("secret: a folder of another user", _foreign_folder, "critical")
    for name, text in BAD_YAML.items():
        yield Case(f"prefect.yaml: {name}", partial(_bad_yaml, text), "low")
    for record in BAD_RECORDS:
        yield Case(f"record of a server: {record}", partial(_bad_record, record), "critical")
    yield Case("a proxy is not asked", _proxy, "critical")
    yield Case("the gate, every combination of headers", _gate, "critical", seconds=120)
    for name, try_all in SERVED.items():
        yield Case(name, partial(_served, try_all), "critical", seconds=600, memory=None)
    yield from server_guests.cases()
    yield from server_ends.cases()


# --- the secret -----------------------------------------------------------------------------------

BAD_SECRETS: dict[Callable[[], object], str] = {
    **{
        partial(SECRET.chmod, mode): f"mode {mode:04o}"
        for mode in (0o604, 0o602, 0o601, 0o640, 0o620, 0o610, 0o644, 0o664, 0o666, 0o777)
    },
    partial(SECRET.write_text, ""): "empty",
    partial(SECRET.write_text, "short"): "short",
    partial(SECRET.write_text, "a" * 42): "a character less",
    partial(SECRET.write_text, "a" * 500): "very long",
    partial(SECRET.write_text, "a" * 43 + " b"): "with a blank",
    partial(SECRET.write_bytes, b"\xff" * 50): "bytes",
    partial(SECRET.write_bytes, b"\0" * 50): "zeros, as after a power failure",
    partial(os.chown, SECRET, NOBODY, NOBODY): "of another user",
}


def _bad_secret(damage: Callable[[], object], folder: Path) -> None:
    before = project_secret()
    damage()
    refused(project_secret, str(SECRET), "must be a file that you own", f"rm -r {SECRET}")
    SECRET.unlink()
    if project_secret() == before:
        raise FaultError("the new secret is the old one")


def _secret_at_once(folder: Path) -> int:
    os.umask(0)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = set(pool.map(_secret_of, range(8)))
    modes = stat.S_IMODE(WORK.stat().st_mode), stat.S_IMODE(SECRET.stat().st_mode)
    if len(found) != 1 or modes != (0o700, 0o600) or len(list(WORK.iterdir())) != 1:
        raise FaultError(f"{len(found)} secrets, modes {modes}, {list(WORK.iterdir())}")
    for make in (os.mkfifo, os.mkdir, partial(os.symlink, "/dev/zero"), partial(os.symlink, "x")):
        SECRET.rmdir() if SECRET.is_dir() else SECRET.unlink()
        make(SECRET)
        refused(project_secret, str(SECRET))
    return 12


def _secret_of(_: int) -> str:
    return project_secret()


def _wide_folder(folder: Path) -> None:
    WORK.mkdir(mode=0o777)
    WORK.chmod(0o777)
    project_secret()
    if stat.S_IMODE(WORK.stat().st_mode) != 0o700:
        raise FaultError("stays open to others")


def _foreign_folder(folder: Path) -> None:
    WORK.mkdir()
    os.chown(WORK, NOBODY, NOBODY)
    refused(work_folder, str(WORK), f"belongs to user {NOBODY}", "must be yours")


# --- prefect.yaml ---------------------------------------------------------------------------------

_GOOD = {"name": "nightly", "entrypoint": "flows/pipeline.py:pipeline"}


def _yaml(**changes: Any) -> str:
    return json.dumps({"deployments": [{**_GOOD, **changes}]})


BAD_YAML = {
    "empty": "",
    "no mapping": "[1, 2]",
    "no list": "deployments: 3",
    "no deployment": "deployments: []",
    "not YAML": "deployments: [",
    "a deployment that is text": "deployments: [nightly]",
    "a name twice": json.dumps({"deployments": [_GOOD, _GOOD]}),
    "a work pool": _yaml(work_pool={"name": "x"}),
    "pull steps": _yaml(pull=[{"prefect.deployments.steps.run_shell_script": {"script": "id"}}]),
    "a command": _yaml(command="id"),
    "job variables": _yaml(job_variables={"command": "id"}),
    **{
        f"entrypoint {entry}": _yaml(entrypoint=entry)
        for entry in (
            "os.py:system",
            "/etc/x.py:y",
            "flows/../x.py:y",
            "flows/x.sh:y",
            "flows.pipeline",
            "flows/pipeline.py:",
            "flows/none.py:pipeline",
            "flows/pipeline.py:workers",
            3,
            None,
        )
    },
    **{f"name {name!r}": _yaml(name=name) for name in ("", " ", "../x", "a/b", 7, None, "x" * 300)},
    **{
        f"cron {cron!r}": _yaml(schedules=[{"cron": cron}])
        for cron in ("", "nightly", "* * * *", "99 * * * *", "0 2 * * * *; id", 5, None)
    },
    "a zone that is none": _yaml(schedules=[{"cron": "0 2 * * *", "timezone": "Mars/Olympus"}]),
    "a limit of zero": _yaml(concurrency_limit=0),
    "a limit that is true": _yaml(concurrency_limit=True),
}


def _bad_yaml(text: str, folder: Path) -> None:
    deployments.PREFECT_YAML.write_text(text)
    refused(
        lambda: [each.flow() for each in deployments.read().values()],
        "prefect.yaml",
        "git checkout prefect.yaml",
    )


# --- what a command trusts ------------------------------------------------------------------------

BAD_RECORDS = ("", "[]", "{}", '{"port": "x"}', "impostor", "dead", "other start")


def _bad_record(text: str, folder: Path) -> None:
    """An impostor answers on the recorded port: it is not taken for this project's server."""
    work_folder()
    with _Impostor() as (port, heard):
        facts = {"port": port, **processes.process_facts(os.getppid())}
        dead = {**facts, "pid": 2**22 + 1}
        other = {**facts, "pid_started": "00000000-1"}
        known = {"impostor": {"port": port}, "dead": dead, "other start": other}
        servers._RECORD.write_text(json.dumps(known[text]) if text in known else text)
        if servers._recorded() is not None:
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


# --- the gate by itself ---------------------------------------------------------------------------


def _gate(folder: Path) -> None:
    """Every combination of host, origin, fetch headers and kind; let in is only what is ours."""
    port = 8123
    reached: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    gate = Gate(app, port)
    ours = f"127.0.0.1:{port}", f"localhost:{port}"
    hosts = [each.format(port=port) for each in FOREIGN_HOSTS] + list(ours)
    origins = (
        [each.format(port=port) for each in FOREIGN_ORIGINS]
        + [f"http://{o}" for o in ours]
        + [None]
    )
    sites = (None, "none", "same-origin", "same-site", "cross-site", "else")
    modes = (None, "navigate", "cors", "no-cors", "websocket")
    dests = (None, "document", "iframe", "empty")
    for host, origin, site, mode, dest, kind in itertools.product(
        hosts, origins, sites, modes, dests, ("http", "websocket")
    ):
        given = {
            "host": host,
            "origin": origin,
            "sec-fetch-site": site,
            "sec-fetch-mode": mode,
            "sec-fetch-dest": dest,
        }
        headers = [(k.encode(), v.encode()) for k, v in given.items() if v is not None]
        link = kind == "http" and mode == "navigate" and dest == "document"
        good = host in ours and (origin is None or origin.removeprefix("http://") in ours)
        good = good and not (origin and not origin.startswith("http:"))
        good = good and (site in (None, "none", "same-origin") or link)
        reached.clear()
        scope = {"type": kind, "method": "GET", "path": "/", "headers": headers}
        _run(gate(scope, _nothing, _swallow))
        if bool(reached) != good:
            raise FaultError(f"{kind} {given}: {'let in' if reached else 'refused'}")


def _run(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise FaultError("the gate waits")


async def _nothing() -> dict[str, Any]:
    return {"type": "websocket.connect"}


async def _swallow(message: Any) -> None:
    return None


def _served(try_all: Callable[[Served], int], folder: Path) -> int:
    with serving(folder) as project:
        return try_all(project)
