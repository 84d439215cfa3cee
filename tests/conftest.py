"""Fixtures around the toy project of tests/toy.py, and switches of all tests."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy import ROOT, Project, commit, make_project

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ROOT", "Project", "commit", "make_project"]

# tests run side by side: with a thread a core each, they and the processes that they start would
# wait for each other; before PyTorch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell starts its background jobs with Ctrl-C ignored, and the processes under test, to which it
# is sent, would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Switches as every entrance sets them; children find this project's code and interpreter."""
    from tasks.running.environment import configure

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "DVC_SITE_CACHE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("PYTHONPATH", str(ROOT))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        patch.setenv("PATH", path)
        patch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        patch.delenv("DVC_STAGE", raising=False)
        patch.delenv("ADAMERGE_PIPELINE_RUN", raising=False)
        configure()
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A new toy project, the current folder for the test."""
    made = make_project(tmp_path / "toy")
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without runs; making one takes seconds."""
    from tasks.tracking.store import Store

    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Store().all_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def database(project: Project, empty_database: Path) -> Path:
    """An empty database in the toy project."""
    return Path(shutil.copy(empty_database, project.root))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server for all tests."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture
def signals() -> Iterator[None]:
    """What the command does with signals ends with its process, which is that of the tests here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- a small CLIP, for the tests of checkpoints: made when it is first asked for -----------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the small architectures known, and forbid the hub."""
    from clip_checkpoints import known

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with known(monkeypatch):
        yield


@pytest.fixture(scope="session")
def whole() -> "dict[str, Tensor]":
    """A CLIP's state dict, in open_clip's names; not to be changed."""
    from clip_checkpoints import whole_clip

    return whole_clip(0)


@pytest.fixture(scope="session")
def tower(whole: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Its image tower's."""
    from clip_checkpoints import tower_of

    return tower_of(whole)
