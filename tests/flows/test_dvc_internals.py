"""DVC's private parts that flows.dvc.internals uses: they are there, with these signatures."""

import fcntl
import inspect
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import dvc.dvcfile
import dvc.stage.run
import pytest
from conftest import ROOT, Project
from dvc.cli import main as dvc_main
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.experiments import Experiments
from dvc.repo.experiments.queue.workspace import WorkspaceQueue
from dvc.repo.experiments.utils import get_exp_rwlock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.scm import SCMError
from dvc.stage.cache import StageCache
from dvc.stage.exceptions import StageCmdFailedError
from dvc.utils.serialize import modify_yaml, parse_yaml

from adamerge_core.errors import InputError
from flows.dvc import internals
from tasks.running.environment import RUN_LOCK


def test_the_version_is_one_that_was_checked() -> None:
    assert version("dvc").startswith("3.67.")
    assert '"dvc>=3.67.1,<3.68"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("called", "parameters"),
    [
        (dvc_main, ["argv"]),
        (parse_yaml, ["text", "path"]),
        (modify_yaml, ["path", "fs"]),
        (get_exp_rwlock, ["repo", "reads", "writes"]),
        (lock_repo, ["repo"]),
        (Repo.status, ["self"]),
        (StageCache._load, ["self", "stage"]),
        (StageCmdFailedError, ["cmd", "status"]),
        (dvc.stage.run._run, ["executable", "cmd", "kwargs"]),
        (StageCache._load_cache, ["self", "key", "value"]),
    ],
)
def test_signatures(called: Callable[..., object], parameters: list[str]) -> None:
    assert list(inspect.signature(called).parameters)[: len(parameters)] == parameters


def test_the_names_that_are_replaced_and_read() -> None:
    assert dvc.dvcfile.modify_yaml is modify_yaml
    assert "modify_yaml(self.path, fs=self.repo.fs)" in inspect.getsource(
        dvc.dvcfile.Lockfile.dump_stages
    )
    assert "_run(executable, cmd, **kwargs)" in inspect.getsource(dvc.stage.run.cmd_run)
    assert '{"cwd": stage.wdir, "env": ' in inspect.getsource(dvc.stage.run.prepare_kwargs)
    assert isinstance(inspect.getattr_static(Experiments, "workspace_queue").fget, Callable)
    assert isinstance(inspect.getattr_static(WorkspaceQueue, "_active_pid"), property)
    assert 'writes=["workspace", ' in inspect.getsource(WorkspaceQueue.put)
    assert issubclass(SCMError, DvcException)
    assert issubclass(LockError, DvcException)
    assert COMPILED_LOCKFILE_SCHEMA({"schema": "2.0"})


def test_the_files_of_the_locks(project: Project) -> None:
    with Repo() as repo:
        assert Path(repo.lock.lockfile).resolve() == internals._REPO_LOCK.resolve()
        assert Path(repo.tmp_dir).resolve() == Path(".dvc/tmp").resolve()


def test_the_graph_and_its_changes(project: Project) -> None:
    upstream, changes = internals.read_graph()
    assert upstream["merge"] == ("grow@a", "grow@b", "grow@c")
    assert list(upstream)[:3] == ["raw@a", "raw@b", "raw@c"]
    assert set(changes) == set(upstream)


def test_a_folder_without_git_is_said(project: Project) -> None:
    Path(".git").rename("git")
    with pytest.raises(InputError, match="git init"):
        internals.read_graph()
    done = project.run("dvc", "config", "--local", "core.no_scm", "true")
    assert done.returncode == 0, done.stderr
    assert internals.read_graph()[0]["merge"]
    with internals.no_experiments():
        pass


def test_nothing_else_imports_dvc() -> None:
    importing = re.compile(r"^\s*(import dvc\b|from dvc[. ])", re.MULTILINE)
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("adamerge_core", "tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if importing.search(path.read_text())
    ]
    assert sorted(found) == ["flows/dvc/internals.py", "flows/dvc/restoring.py"]


def test_what_dvc_prints_around_a_stage(project: Project) -> None:
    """The worker reads these lines."""
    first = project.run("dvc", "repro", "--single-item", "raw@a")
    assert internals.RAN in first.stdout
    again = project.run("dvc", "repro", "--single-item", "raw@a")
    assert any(line.endswith(internals.UNCHANGED) for line in again.stdout.splitlines())
    Path("dvc.lock").unlink()
    restored = project.run("dvc", "repro", "--single-item", "raw@a")
    assert internals.RESTORED in restored.stdout
    known = (*internals.NOISE, internals.RAN)
    own = [
        line
        for line in (again.stdout + restored.stdout).splitlines()
        if line and not line.startswith(known)
    ]
    assert len(own) == 2, own


def test_links_to_nothing_are_set_aside(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among the outputs, and in the cache of runs, where DVC asks for their times."""
    made = project.run("flows.dvc.worker", input="raw@a\n")
    assert "done 0" in made.stdout
    output = Path("data/datasets/a/8px/train_images.npy")
    entries = [path for path in Path(".dvc/cache/runs").glob("*/*/*") if path.is_file()]
    for path in (output, *entries):
        path.unlink()
        path.symlink_to("/nowhere/at/all")
    Path("dvc.lock").unlink()
    internals.read_graph()
    assert f"{output} leads to /nowhere/at/all, which is not there" in capsys.readouterr().out
    assert not output.is_symlink()
    again = project.run("flows.dvc.worker", input="raw@a\n")
    assert "leads to /nowhere/at/all" in again.stdout
    assert "done 0" in again.stdout
    assert output.is_file()


def test_a_full_disk_is_no_damaged_database(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Repo:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(internals, "Repo", full)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        internals.read_graph()
    assert not Path(".adamerge/aside").exists()


def test_a_lock_of_the_flow_at_work_is_kept_and_one_of_no_one_is_not(project: Project) -> None:
    """Whatever the flow's process is called: Prefect starts it under a name of its own."""
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    RUN_LOCK.parent.mkdir(exist_ok=True)
    with subprocess.Popen(["sleep", "60"]) as process, RUN_LOCK.open("w") as file:
        lock.write_text(json.dumps({"write": {"x": {"pid": process.pid, "cmd": "any"}}}))
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(process.pid))
        file.flush()
        internals.mend()
        assert lock.exists()
        fcntl.flock(file, fcntl.LOCK_UN)
        internals.mend()
        assert not lock.exists()
        process.kill()


def test_params_are_parsed_by_what_stands_in_the_loaders() -> None:
    from dvc.utils.serialize import LOADERS, load_yaml

    assert LOADERS.default_factory is not None
    assert LOADERS.default_factory() is load_yaml
