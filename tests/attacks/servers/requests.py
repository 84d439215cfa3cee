"""The room of the servers, its requests: forged ones, by the hundred, to both servers."""

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.attacks.cases import Case, FaultError
from tests.attacks.servers.hostile import (
    CLOSED,
    CONTENT_TYPES,
    FOREIGN_HOSTS,
    FOREIGN_ORIGINS,
    LOCATIONS,
    METHODS,
    OUTSIDE,
    PATHS,
    SOCKETS,
    WRONG_SECRETS,
)
from tests.attacks.servers.served import Answer, Served, ask, handshake, send, serving


def _expect(answer: Answer, statuses: tuple[int, ...], project: Served, what: object) -> None:
    if answer.status not in statuses or project.secret in answer.body:
        raise FaultError(f"{what}: answered {answer.status}: {answer.body[:300]}")


def _each_server(project: Served) -> Iterator[tuple[str, int]]:
    yield "prefect", project.prefect
    yield "mlflow", project.mlflow


def _forged_hosts(project: Served) -> int:
    tried = 0
    for name, port in _each_server(project):
        for host, method, path in itertools.product(FOREIGN_HOSTS, METHODS, PATHS[name]):
            login = [project.login(port)]
            answer = ask(port, method, path, login, host=host.format(port=port))
            _expect(answer, (400, 403), project, (name, host, method, path))
            tried += 1
        own = f"127.0.0.1:{port}"
        for second in ("evil.example", own):
            answer = ask(port, headers=[("Host", second), project.login(port)])
            _expect(answer, (400, 403), project, (name, "two hosts", second))
            answer = ask(
                port, path=f"http://{second}/", headers=[("X-Forwarded-Host", own)], host="evil"
            )
            _expect(answer, (400, 403), project, (name, "absolute", second))
            tried += 2
    return tried


def _forged_origins(project: Served) -> int:
    """The browser adds the login by itself, as it does for a page that the user is logged in to."""
    tried = 0
    for name, port in _each_server(project):
        for origin, method, kind, path in itertools.product(
            FOREIGN_ORIGINS, METHODS, CONTENT_TYPES, PATHS[name]
        ):
            headers = [("Origin", origin.format(port=port)), project.login(port)]
            headers += [("Content-Type", kind)] if kind else []
            answer = ask(port, method, path, headers, b'{"name": "x"}' if method == "POST" else b"")
            _expect(answer, (400, 403), project, (name, origin, method, kind, path))
            if "access-control-allow" in answer.body.lower():
                raise FaultError(f"{name}, {origin}: allows other origins")
            tried += 1
        for site, mode, dest, path in itertools.product(
            ("same-site", "cross-site"),
            ("no-cors", "cors", "navigate"),
            ("image", "script", "iframe", "frame", "embed", "object", "empty"),
            PATHS[name],
        ):
            said = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]
            answer = ask(port, "GET", path, [*said, project.login(port)])
            _expect(answer, (403,), project, (name, said, path))
            tried += 1
    return tried


def _without_secret(project: Served) -> int:
    """Every route of Prefect's API and MLflow's; then the wrong secrets."""
    tried = 0
    schema = json.loads(ask(project.prefect, path="/openapi.json").body.partition("\r\n\r\n")[2])
    routes = [
        (
            project.prefect,
            method.upper(),
            "/api" + path.removeprefix("/api").replace("{", "").replace("}", ""),
        )
        for path, methods in schema["paths"].items()
        for method in methods
        if path.removeprefix("/api") not in ("/health", "/ready")
    ]
    if len(routes) < 100:
        raise FaultError(f"only {len(routes)} routes found")
    routes += [(project.mlflow, method, path) for method in METHODS for path in PATHS["mlflow"]]
    for port, method, path in routes:
        _expect(ask(port, method, path), (401,), project, (method, path))
        tried += 1
    secret = project.secret
    for wrong in WRONG_SECRETS:
        text = wrong.format(secret=secret, cut=secret[:-1], upper=secret.swapcase())
        for given in (text, f"me:{text}"):
            token = base64.b64encode(given.encode()).decode()
            for scheme in ("Basic", "Bearer", "basic", "Digest"):
                for port in (project.prefect, project.mlflow):
                    path = "/api/admin/version" if port == project.prefect else "/version"
                    answer = ask(port, path=path, headers=[("Authorization", f"{scheme} {token}")])
                    _expect(answer, (400, 401, 500), project, (scheme, given))
                    tried += 1
    two = [project.login(project.mlflow), ("Authorization", "Basic eDp4")]
    _expect(ask(project.mlflow, headers=two), (401,), project, "two logins")
    return tried + 1


def _sockets(project: Served) -> int:
    tried, port = 0, project.prefect
    own = f"http://127.0.0.1:{port}"
    for path in SOCKETS:
        for origin in FOREIGN_ORIGINS:
            said = [("Origin", origin.format(port=port)), ("Sec-WebSocket-Protocol", "prefect")]
            good = json.dumps({"type": "auth", "token": project.secret})
            _expect(
                send(port, handshake(path, port, said, good)), (400, 403), project, (path, origin)
            )
            tried += 1
        for host in FOREIGN_HOSTS[1:]:
            said = [("Host", host.format(port=port)), ("Sec-WebSocket-Protocol", "prefect")]
            raw = handshake(path, port, said)
            _expect(send(port, raw), (400, 403), project, (path, host))
            tried += 1
        for token in ("", "x", project.secret[:-1]):
            for said in ([], [("Sec-WebSocket-Protocol", "prefect")], [("Origin", own)]):
                frame = json.dumps({"type": "auth", "token": token})
                answer = send(port, handshake(path, port, said, frame))
                if "auth_success" in answer.body or "prefect." in answer.body:
                    raise FaultError(f"{path}, {said}, {token!r}: {answer.body[:300]}")
                tried += 1
    return tried


def _mlflow_bounds(project: Served) -> int:
    """One who is logged in reads runs and models; nothing leads the server out of the project."""
    port, tried = project.mlflow, 0
    login = [project.login(port), ("Content-Type", "application/json")]
    for method, path in CLOSED:
        _expect(ask(port, method, path, login, b"{}"), (400, 404), project, (method, path))
        tried += 1
    create = "/api/2.0/mlflow/experiments/create"
    before = sorted(project.folder.rglob("*"))
    for version, location in itertools.product(("/api", "/ajax-api"), LOCATIONS):
        body = json.dumps({"name": f"x{tried}", "artifact_location": location}).encode()
        path = create.replace("/api", version)
        _expect(ask(port, "POST", path, login, body), (400,), project, location)
        tried += 1
    answer = ask(port, "POST", create, login, b'{"name": "good"}')
    _expect(answer, (200,), project, "an experiment without a location")
    ask(port, "POST", "/api/2.0/mlflow/registered-models/create", login, b'{"name": "m"}')
    for source in (*LOCATIONS[:-3], "models:/m-x/../y"):
        body = json.dumps({"name": "m", "source": source}).encode()
        answer = ask(port, "POST", "/api/2.0/mlflow/model-versions/create", login, body)
        _expect(answer, (400, 404, 500), project, source)
        tried += 1
    (project.folder / "mlartifacts").mkdir(exist_ok=True)
    for start in (
        "/api/2.0/mlflow-artifacts/artifacts/",
        "/static-files/",
        "/build/",
        "/get-artifact?run_uuid=x&path=",
        "/model-versions/get-artifact?name=m&version=1&path=",
        "/api/2.0/mlflow-artifacts/artifacts?path=",
        "/api/2.0/mlflow/artifacts/list?run_id=x&path=",
    ):
        for outside in OUTSIDE:
            path = start + outside.format(folder=project.folder)
            answer = ask(port, "GET", path, login)
            nothing = answer.body.endswith("\r\n\r\n{}")  # the list of a folder that is not there
            if project.secret in answer.body or (answer.status == 200 and not nothing):
                raise FaultError(f"{path}: {answer.status} {answer.body[:300]}")
            tried += 1
    ours = [each for each in sorted(project.folder.rglob("*")) if each not in before]
    if any(
        "mlflow" not in each.name and ".adamerge" not in each.parts and each.name != "mlartifacts"
        for each in ours
    ):
        raise FaultError(f"wrote {ours}")
    return tried


def _not_http(project: Served) -> int:
    """Bytes that are no request: the servers live on, and tell nothing."""
    raws = [
        b"",
        b"\0" * 1000,
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"A" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /api/flows/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 4\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    ]
    for raw, (_, port) in itertools.product(raws, _each_server(project)):
        _expect(send(port, raw, 2.0), (0, 400, 403, 404, 431, 501, 505), project, raw[:40])
    for _, port in _each_server(project):
        if ask(port, path="/api/health" if port == project.prefect else "/health").status != 200:
            raise FaultError("a server no longer answers")
    return len(raws) * 2


SERVED: dict[str, Callable[[Served], int]] = {
    "forged hosts": _forged_hosts,
    "forged origins, and what a browser says of a page": _forged_origins,
    "every route without the secret, and wrong ones": _without_secret,
    "websockets": _sockets,
    "MLflow's other parts, locations and paths": _mlflow_bounds,
    "bytes that are no request": _not_http,
}


def _all(folder: Path) -> int:
    """Try all of them on the same servers, which take long to start; every fault is told."""
    tried, faults = 0, []
    with serving(folder) as project:
        for name, try_all in SERVED.items():
            try:
                tried += try_all(project)
            except FaultError as fault:
                faults.append(f"{name}: {fault}")
    if faults:
        raise FaultError("\n".join(faults))
    return tried


def cases() -> Iterator[Case]:
    """Give the case of this part."""
    name = f"requests: {'; '.join(SERVED)}"
    yield Case(name, _all, "critical", seconds=1200, memory=None)
