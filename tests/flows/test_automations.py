"""Prefect's automations, end to end: a failing night reaches a receiver with its last lines."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import SimpleQueue

import pytest
from conftest import ROOT, Project, make_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 240.0


class Receiver(BaseHTTPRequestHandler):
    """Takes messages as JSON."""

    heard: "SimpleQueue[str]"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.heard.put(json.loads(self.rfile.read(length))["text"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Print nothing."""


@contextmanager
def receiving() -> Iterator[tuple[int, "SimpleQueue[str]"]]:
    heard: SimpleQueue[str] = SimpleQueue()
    server = HTTPServer(("127.0.0.1", 0), type("Ours", (Receiver,), {"heard": heard}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def scheduling(project: Project) -> Iterator[int]:
    """`adamerge schedule --automations` in the toy project; its Prefect server's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"from flows.nightly import serve; serve({port}, now=False, automations=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert process.poll() is None, lines
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield port
        process.send_signal(signal.SIGINT)
        drain.join(60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdout.close()


def test_a_failing_night_reaches_a_receiver_with_its_last_lines(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    project = make_project(tmp_path_factory.mktemp("automations") / "toy")
    project.replace("params.yaml", "fail: []", "fail: [grow@b]")
    shutil.copy(ROOT / "prefect.yaml", project.root)
    shutil.copytree(ROOT / "flows", project.root / "flows")
    text = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")
    found = re.search(r"test_automations.py -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found
    with receiving() as (receiver, heard), scheduling(project) as port:
        secret = (project.root / ".adamerge/secret").read_text().strip()
        api = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_API_AUTH_STRING": secret}
        made = found[1].replace(":9000/", f":{receiver}/")
        start = (
            "from prefect.deployments import run_deployment\n"
            "run_deployment('pipeline/nightly', timeout=0, parameters={'reason': 'a test'})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", made + start],
            env={**os.environ, **api},
            cwd=project.root,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        until = time.monotonic() + SECONDS
        while heard.empty() and time.monotonic() < until:
            time.sleep(0.5)
        said = heard.get(timeout=1)
    assert ": Failed" in said
    assert "grow@b failed; its last lines" in said
    assert "grow@b: grow@b is told to fail" in said
