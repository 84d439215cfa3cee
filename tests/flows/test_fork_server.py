"""The process that forks for each stage: what a stage sees is what `python -m` would show it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.dvc.fork_server import ForkServer

LIBRARY = "colorsys"

PROBE = """
import json, os, sys, time
seen = {
    "name": __name__, "module": __spec__.name, "argv": sys.argv[1:], "env": dict(os.environ),
    "cwd": os.getcwd(), "input": sys.stdin.read(), "ahead": "colorsys" in sys.modules,
    "own": "flows.dvc.internals" in sys.modules, "pid": os.getpid(),
}
if "--use" in sys.argv:
    import colorsys
os.environ["LEFT"] = "behind"
with open("seen.json.part", "w") as file:
    json.dump(seen, file)
os.rename("seen.json.part", "seen.json")
if sys.argv[1:] == ["sleep"]:
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise ValueError('of the stage')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ForkServer]:
    with closing(ForkServer([LIBRARY])) as started:
        yield started


def run(server: ForkServer, folder: Path, *arguments: str, **env: str) -> int:
    return server.run("probe", list(arguments), {**os.environ, **env}, str(folder))


def seen(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    (folder / "seen.json").unlink()
    return found


def test_a_stage_sees_what_a_process_of_its_own_would(server: ForkServer, folder: Path) -> None:
    assert run(server, folder, "0", "--key", "a b", DVC_STAGE="one") == 0
    first = seen(folder)
    assert first["name"] == "__main__"
    assert first["module"] == "probe"
    assert first["argv"] == ["0", "--key", "a b"]
    assert first["cwd"] == str(folder)
    assert first["input"] == ""
    assert first["env"]["DVC_STAGE"] == "one"
    assert not first["own"]
    assert run(server, folder, "7") == 7
    second = seen(folder)
    assert second["pid"] != first["pid"]
    assert "DVC_STAGE" not in second["env"]
    assert "LEFT" not in second["env"]


def test_a_library_is_imported_ahead_once_a_stage_has_imported_it(folder: Path) -> None:
    with closing(ForkServer(["zipapp", LIBRARY])) as server:

        def ahead(*arguments: str) -> bool:
            run(server, folder, *arguments)
            return bool(seen(folder)["ahead"])

        assert [ahead("0"), ahead("0", "--use"), ahead("1"), ahead("0")] == [
            False,
            False,
            True,
            True,
        ]


def test_a_stage_that_is_killed_takes_no_library_away(server: ForkServer, folder: Path) -> None:
    run(server, folder, "0", "--use")
    seen(folder)
    during(server, folder, lambda stage: stage.kill())
    run(server, folder, "0")
    assert seen(folder)["ahead"]


def test_the_projects_modules_are_read_anew(server: ForkServer, folder: Path) -> None:
    assert run(server, folder, "1") == 1
    (folder / "probe.py").write_text("raise SystemExit(42)", encoding="utf-8")
    assert run(server, folder, "1") == 42


def test_an_error_of_a_stage_is_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(ForkServer([LIBRARY])) as server:
        assert server.run("broken", [], os.environ, str(folder)) == 1
        assert capfd.readouterr().err.rstrip().endswith("ValueError: of the stage")
        assert run(server, folder, "0") == 0


def test_a_signal_ends_the_stage_alone(server: ForkServer, folder: Path) -> None:
    assert (
        during(server, folder, lambda stage: stage.send_signal(signal.SIGKILL)) == -signal.SIGKILL
    )
    assert during(server, folder, interrupt_all) == 1
    assert run(server, folder, "0") == 0


def test_a_killed_server_takes_its_stage_along(server: ForkServer, folder: Path) -> None:
    stages: list[psutil.Process] = []

    def kill(stage: psutil.Process) -> None:
        stages.append(stage)
        stage.parent().kill()

    assert during(server, folder, kill) == -9
    assert not server.alive
    psutil.wait_procs(stages, timeout=10)
    assert not any(stage.is_running() for stage in stages)
    assert run(server, folder, "0") == -9


def interrupt_all(stage: psutil.Process) -> None:
    """Interrupt the stage and its server, as the end of a whole group does."""
    server = stage.parent()
    stage.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGINT)


def during(server: ForkServer, folder: Path, act: Callable[[psutil.Process], None]) -> int:
    """Act on the process of a stage while it sleeps; return its exit code."""

    def watch() -> None:
        while not (folder / "seen.json").exists():
            time.sleep(0.02)
        act(psutil.Process(seen(folder)["pid"]))

    thread = threading.Thread(target=watch)
    thread.start()
    code = run(server, folder, "sleep")
    thread.join()
    return code
