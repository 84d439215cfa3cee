"""What stands before the servers: the gate, the secret; and what the worker of schedule runs."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adamerge_core.errors import InputError
from flows import servers
from tasks.running.environment import WORK, work_folder
from tasks.running.gate import Gate
from tasks.running.secret import SECRET, project_secret
from tasks.tracking.server import served

OURS = {"host": "127.0.0.1:80"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)
    yield tmp_path
    os.umask(mask)


def status(headers: dict[str, str], kind: str = "http", **options: Any) -> int:
    """What the gate answers to a request; 0: it let it in."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"status": 0})

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": "GET", "path": "/x", "headers": raw}
    with pytest.raises(StopIteration):
        Gate(app, 80, **options)(scope, receive, send).send(None)
    return int(sent[0].get("status", sent[0].get("code", -1)))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (OURS, 0),
        ({"host": "localhost"}, 0),
        ({**OURS, "origin": "http://localhost:80", "sec-fetch-site": "same-origin"}, 0),
        ({}, 403),
        ({"host": "evil.example:80"}, 403),
        ({**OURS, "origin": "null"}, 403),
        ({**OURS, "origin": "http://127.0.0.1:81"}, 403),
        ({**OURS, "sec-fetch-site": "same-site"}, 403),
        ({**OURS, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_the_gate_lets_in_what_is_ours(headers: dict[str, str], expected: int) -> None:
    assert status(headers) == expected
    assert status(headers, kind="websocket") == (expected and 1008)


def test_a_link_from_elsewhere_may_be_followed_but_not_framed() -> None:
    link = {**OURS, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert status({**link, "sec-fetch-dest": "document"}) == 0
    assert status({**link, "sec-fetch-dest": "iframe"}) == 403


@pytest.mark.parametrize(
    ("given", "expected"),
    [("me:right", 0), (":right", 0), ("me:wrong", 401), ("right", 401), ("me:right ", 401)],
)
def test_the_gate_asks_for_the_secret(given: str, expected: int) -> None:
    token = base64.b64encode(given.encode()).decode()
    assert status({**OURS, "authorization": f"Basic {token}"}, secret="right") == expected
    assert status({**OURS, "authorization": f"Bearer {token}"}, secret="right") == 401
    assert status(OURS, secret="right") == 401
    assert status(OURS, secret="right", open_paths=("/x",)) == 0
    assert status(OURS, served=lambda method, path: False) == 404


def test_mlflow_serves_runs_and_models_alone() -> None:
    api = "/ajax-api/2.0/mlflow/"
    for path in ("/", api + "runs/search", api + "experiments/create", api + "logged-models/x"):
        assert served("GET", path), path
    for path in ("/ajax-api/3.0/mlflow/assistant/config", "/v1/traces", api + "gateway-proxy/x"):
        assert not served("GET", path), path
    assert not served("POST", api + "gateway-proxy")
    artifact = "/api/2.0/mlflow-artifacts/artifacts/x"
    assert served("GET", artifact)
    assert not served("PUT", artifact)


def test_the_secret_is_its_owners_alone() -> None:
    secret = project_secret()
    assert secret == project_secret()
    assert len(secret) == 43
    assert (SECRET.stat().st_mode & 0o777, WORK.stat().st_mode & 0o777) == (0o600, 0o700)
    SECRET.chmod(0o640)
    with pytest.raises(InputError, match=r"\.adamerge/secret has mode 0640.*rm -r"):
        project_secret()
    SECRET.unlink()
    SECRET.symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="cannot be opened"):
        project_secret()
    SECRET.unlink()
    assert project_secret() != secret


def test_a_working_folder_that_others_may_enter_is_narrowed() -> None:
    WORK.mkdir()
    WORK.chmod(0o777)
    work_folder()
    assert WORK.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("record", ["", "[]", '{"port": "x"}', json.dumps({"port": 1, "pid": 1})])
def test_no_server_is_taken_for_ours_by_its_port(record: str) -> None:
    work_folder()
    servers.record_path("Prefect").write_text(record)
    assert servers.running("Prefect") is None


def test_a_port_is_held_from_the_start() -> None:
    with servers._listen(None, "Prefect", "--prefect-port") as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=f"--prefect-port {port}: .* in use"):
            servers._listen(port, "Prefect", "--prefect-port")


# --- prefect.yaml and the worker ------------------------------------------------------------------


def test_prefect_yaml_says_all_faults_at_once() -> None:
    from flows import deployments

    bad = {"name": "a/b", "entrypoint": "os.py:system", "pull": [{"run": "id"}]}
    deployments.PREFECT_YAML.write_text(json.dumps({"deployments": [bad, "x"]}))
    with pytest.raises(InputError) as caught:
        deployments.read()
    for part in (
        "name = 'a/b'",
        "entrypoint = 'os.py:system'",
        "pull",
        "deployment 2",
        "git check",
    ):
        assert part in str(caught.value)


def test_the_worker_refuses_what_is_not_deployed(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.deployments import Deployment
    from flows.worker import Worker

    ours = Deployment(name="nightly", entrypoint="flows/pipeline.py:pipeline")
    runs = [
        SimpleNamespace(id=n, name=f"run-{n}", deployment_id=of)
        for n, of in enumerate(["ours", "evil", None])
    ]
    states: dict[int, Any] = {}
    client: Any = SimpleNamespace(
        read_flow_runs=lambda **_: runs,
        set_flow_run_state=lambda key, state, force: states.update({key: state}),
        get_scheduled_flow_runs_for_deployments=lambda ids, **_: [],
    )
    key: Any = "ours"
    Worker(client, {key: ours}).turn()
    assert {number: state.type.value for number, state in states.items()} == {
        1: "CANCELLED",
        2: "CANCELLED",
    }
    assert "flow run 'run-1': refused" in capsys.readouterr().out
