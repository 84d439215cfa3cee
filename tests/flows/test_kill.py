"""kill -9 of everything, at any moment, again and again: the end is that of an undisturbed run."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import Project, make_project
from small_suite import make_small

pytestmark = pytest.mark.slow

KILLS = 10

# the flow as `adamerge run` starts it; the toy project is no suite, which that would refuse
_RUN_TOY = """
import os
from flows import cli, commands
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
class Toy:
    name = "toy"
commands.check = Toy
raise SystemExit(cli.main(["run"]))
"""


def start(project: Project, command: list[str]) -> "subprocess.Popen[str]":
    with (project.root.parent / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=project.root,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def kill_everything(project: Project) -> int:
    """Every process at work in the project, whoever its parent is; how many there were."""
    killed = 0
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(project.root):
                process.kill()
                killed += 1
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return killed


def wait_for_work(project: Project, process: "subprocess.Popen[str]") -> None:
    """Until a stage keeps something to resume from, or the run has ended."""
    scratch, began = project.root / ".adamerge/scratch", time.time()
    while process.poll() is None:
        kept = [path.stat().st_mtime for path in scratch.glob("*/*") if path.exists()]
        if max(kept, default=0.0) > began:
            return
        time.sleep(0.05)


def run_with_kills(project: Project, command: list[str], seconds: tuple[float, float]) -> None:
    """`KILLS` starts, each killed after a random while; then one to the end.

    Every other kill waits for a stage that is in the middle of its work, if one comes.
    """
    dice = random.Random(0)
    for kill in range(KILLS):
        process = start(project, command)
        if kill % 2:
            wait_for_work(project, process)
            time.sleep(dice.uniform(0.0, 2.0))
        else:
            time.sleep(dice.uniform(*seconds))
        kill_everything(project)
        process.wait()
    last = start(project, command)
    assert last.wait(timeout=900) == 0, (project.root.parent / "log").read_text()[-3000:]


def assert_same_and_clean(killed: Project, undisturbed: Project) -> None:
    assert killed.hashes() == undisturbed.hashes()
    status = killed.run("dvc", "status", "-q")
    assert status.returncode == 0, status.stdout
    assert not list((killed.root / ".adamerge/journal").glob("*.jsonl"))
    assert not list((killed.root / "data").rglob("*.part*"))


@pytest.mark.timeout(1200)
def test_a_toy_pipeline_survives_kills(tmp_path: Path) -> None:
    projects = [make_project(tmp_path / name / "toy") for name in ("undisturbed", "killed")]
    undisturbed, killed = projects
    assert start(undisturbed, ["-c", _RUN_TOY]).wait(timeout=300) == 0
    killed.replace("params.yaml", "seconds: 0.01", "seconds: 0.4")
    run_with_kills(killed, ["-c", _RUN_TOY], (4.0, 16.0))
    # the time that steps take is a parameter, and so in the content: the same for both
    undisturbed.replace("params.yaml", "seconds: 0.01", "seconds: 0.4")
    assert start(undisturbed, ["-c", _RUN_TOY]).wait(timeout=300) == 0
    assert_same_and_clean(killed, undisturbed)
    resumed = (tmp_path / "killed" / "log").read_text()
    assert "resumes at" in resumed


@pytest.mark.timeout(300)
def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    project = make_project(tmp_path / "stopped" / "toy")
    project.replace("params.yaml", "seconds: 0.01", "seconds: 20")
    process = start(project, ["-c", _RUN_TOY])
    while not list((project.root / ".adamerge").glob("scratch/*")):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    said = (project.root.parent / "log").read_text()
    assert "stopped; the same command goes on from here" in said
    assert "Traceback" not in said
    assert kill_everything(project) == 0


@pytest.mark.timeout(2400)
def test_the_real_stages_survive_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = make_small(tmp_path / "undisturbed" / "small")
    killed = make_small(tmp_path / "killed" / "small")
    for project, run in ((undisturbed, None), (killed, run_with_kills)):
        monkeypatch.setenv("PYTHONPATH", str(project.root))
        command = ["-m", "flows.cli", "run"]
        if run is None:
            assert start(project, command).wait(timeout=900) == 0
        else:
            run(project, command, (8.0, 30.0))
    assert_same_and_clean(killed, undisturbed)
