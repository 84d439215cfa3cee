"""The room of the servers, its guests: a browser on other sites' pages, a second user, plants."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.attacks.cases import Case, FaultError
from tests.attacks.servers.served import (
    ROOT,
    Served,
    as_nobody,
    ask,
    environment,
    ports,
    serving,
    until,
)
from tests.toy import make_project

_PLANT = Path(__file__).with_name("plant.py")
_PAGE = Path(__file__).with_name("hostile_page.html")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def cases() -> Iterator[Case]:
    """The guests; each starts servers, and takes a minute."""
    for name in ("127.0.0.1", "localhost", "evil.test"):
        run = partial(_browser, name)
        yield Case(f"a page on {name}, in a browser", run, "critical", seconds=600, memory=None)
    yield Case("a second user", _second_user, "critical", seconds=600, memory=None)
    yield Case(
        "deployments planted in the database", _planted, "critical", seconds=600, memory=None
    )


# --- a browser ------------------------------------------------------------------------------------


class _Hostile(BaseHTTPRequestHandler):
    """Serves the page, under whichever name it is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE.read_bytes())

    def log_message(self, *_: object) -> None:
        pass


def _browser(name: str, folder: Path) -> int:
    """A page on another site, while the user is logged in to both servers in the same browser."""
    if BROWSER is None:
        raise FaultError("needs chromium, which is not installed: this was not tried")
    from playwright.sync_api import sync_playwright

    hostile = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    with serving(folder) as project, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--host-resolver-rules=MAP *.test 127.0.0.1"],
        )
        mlflow = f"http://127.0.0.1:{project.mlflow}"
        context = browser.new_context(
            http_credentials={"username": "me", "password": project.secret, "origin": mlflow}
        )
        _log_in(context, project, mlflow)
        before = _state(project)
        page = context.new_page()
        page.goto(f"http://{name}:{hostile.server_address[1]}/")
        names = ("127.0.0.1", "localhost", "rebound.test")
        both = [f"http://{n}:{p}" for n in names for p in (project.prefect, project.mlflow)]
        socket = f"ws://127.0.0.1:{project.prefect}"
        found: dict[str, Any] = page.evaluate(
            "([bases, socket]) => all(bases, socket)", [both, socket]
        )
        rebound = 0
        for port in (project.prefect, project.mlflow):
            for path in ("/", "/api/health", "/health"):
                answer = page.goto(f"http://rebound.test:{port}{path}")
                rebound += 1
                if answer is None or answer.status != 403:
                    raise FaultError(f"another name for the server, {port}{path}: {answer}")
        browser.close()
        if found["got"]:
            raise FaultError(f"the page read {found['got'][:5]} ({len(found['got'])} in all)")
        if _state(project) != before:
            raise FaultError(f"the page wrote: {before} became {_state(project)}")
    hostile.shutdown()
    return int(found["tried"]) + rebound


def _log_in(context: Any, project: Served, mlflow: str) -> None:
    """Log in as a user does, and see that the pages then show something."""
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{project.prefect}/")
    page.locator("input[type=password]").first.fill(project.secret)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard**", timeout=60_000)
    page.goto(mlflow)
    page.get_by_text("Welcome to MLflow").first.wait_for(timeout=60_000, state="attached")
    page.close()


def _state(project: Served) -> dict[str, int]:
    """How much there is in both databases."""
    counts = {}
    databases = {
        "mlflow.db": ("experiments", "runs", "registered_models"),
        ".adamerge/prefect/prefect.db": ("flow", "flow_run", "deployment", "variable"),
    }
    for path, tables in databases.items():
        with sqlite3.connect(project.folder / path) as connection:
            for table in tables:
                [(counts[table],)] = connection.execute(f"SELECT count(*) FROM {table}")
    return counts


# --- a second user --------------------------------------------------------------------------------


def _second_user(folder: Path) -> int:
    if os.geteuid():
        raise FaultError("needs root, to be a second user: this was not tried")
    with serving(folder) as project:
        secret = project.secret
        (folder / "mlartifacts").mkdir(exist_ok=True)
        project_paths = [*folder.iterdir(), *(folder / ".adamerge").rglob("*")]
        private = [p for p in project_paths if ".adamerge" in p.parts or "ml" in p.name[:2]]
        tries = [partial(_open, path, how) for path in private for how in ("rb", "r+b", "ab")]
        tries += [
            partial(_put, each / "x")
            for each in (folder, folder / ".adamerge", folder / "mlartifacts")
        ]
        tries += [partial(_spy, secret)]
        for port in (project.prefect, project.mlflow):
            for method in ("GET", "POST"):
                path = "/api/flow_runs/filter" if port == project.prefect else "/"
                tries.append(partial(_ask, port, method, path))
        for each in tries:
            if seen := as_nobody(each):
                raise FaultError(f"another user: {seen}")
    return len(tries)


def _open(path: Path, how: str) -> str | None:
    try:
        with path.open(how):
            return f"opened {path} ({how})"
    except OSError:
        return None


def _put(path: Path) -> str | None:
    try:
        path.write_text("x")
    except OSError:
        return None
    return f"wrote {path}"


def _spy(secret: str) -> str | None:
    """Look for the secret in what the system tells every user of processes."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if secret.encode() in (process / name).read_bytes():
                    return f"the secret is in {process / name}"
            except OSError:
                continue
    return None


def _ask(port: int, method: str, path: str) -> str | None:
    answer = ask(port, method, path, [("Content-Type", "application/json")])
    return None if answer.status == 401 else f"{method} {path}: {answer.status}"


# --- plants ---------------------------------------------------------------------------------------


def _planted(folder: Path) -> int:
    """What is in the database before `adamerge schedule` starts is not what it runs."""
    root, sign = folder / "toy", folder / "pwned"
    project = make_project(root)
    shutil.copy(ROOT / "prefect.yaml", root)
    (root / "evil.py").write_text(f"open({str(sign)!r}, 'w')\n")
    with serving(root) as served:
        login = served.login(served.prefect)[1].removeprefix("Basic ")
        planted = subprocess.run(
            [sys.executable, str(_PLANT), f"http://127.0.0.1:{served.prefect}", login, str(sign)],
            capture_output=True,
            text=True,
            check=False,
        )
        if planted.returncode:
            raise FaultError(f"nothing was planted: {planted.stderr[-1000:]}")
    port, log = ports(1)[0], folder / "log"
    code = f"from flows.nightly import serve; raise SystemExit(serve({port}, now=True))"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, env=environment(), stdout=file,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        until(lambda: log.read_text().count("8 stages in") >= 1, 400, f"a run; {log.read_text()}")
        time.sleep(10)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    text = log.read_text()
    with sqlite3.connect(root / ".adamerge/prefect/prefect.db") as database:
        left = database.execute("SELECT flow.name, deployment.name FROM deployment JOIN flow "
                                "ON flow.id = deployment.flow_id").fetchall()  # fmt: skip
        ran = database.execute("SELECT name, state_type FROM flow_run WHERE flow_id IN (SELECT id "
                               "FROM flow WHERE name IN ('evil', 'alone'))").fetchall()  # fmt: skip
    if sign.exists():
        raise FaultError(f"the plant ran:\n{text}")
    if left != [("pipeline", "nightly")] or {state for _, state in ran} - {"CANCELLED"}:
        raise FaultError(f"left {left}, {ran}:\n{text}")
    if "removed, prefect.yaml does not have it" not in text or "refused" not in text:
        raise FaultError(f"says nothing of it:\n{text}")
    assert project.root == root
    return 13
