"""A case of the room, and whether a project works: what its parts share."""

import os
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

from tests.attacks import projects
from tests.attacks.cases import Case, Severity, said
from tests.attacks.projects import (
    call,
    command,
    expect,
)

IS_ROOT = os.geteuid() == 0  # some cases need its rights: another user, a mount


def case(
    name: str, run: Callable[[Path], Any], severity: Severity = "medium", seconds: float = 150.0
) -> Case:
    def within(folder: Path) -> None:
        run(folder)

    return Case(name, within, severity, seconds, memory=None)


def works(project: projects.Project, **more: Any) -> None:
    """Raise FaultError unless the status is told, and a stage restored, in a process of its own."""
    done = call(project, "status", **more)
    said(done.stdout + done.stderr, ["8 of 8 stages have nothing to do", "last pipeline run"])
    expect(done.returncode == 0, done.stderr)


def says_all_is_well() -> None:
    """Raise FaultError unless the status is told, in this process."""
    code, text = command("status")
    said(text, ["8 of 8 stages have nothing to do", "last pipeline run"])
    expect(code == 0, text)


def tree(root: Path) -> str:
    """Hash the names and the contents of all files of a folder."""
    total = md5()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode())
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


def artifacts_open(project: projects.Project) -> None:
    """Raise FaultError unless all artifacts of all runs lie in the project and open there."""
    from tasks.tracking.store import Store

    os.chdir(project.root)
    client = Store().client
    opened = 0
    for experiment in client.search_experiments():
        if experiment.name == "Default":
            continue
        here = Path("mlartifacts").resolve().as_uri()
        expect(experiment.artifact_location == here, f"leads to {experiment.artifact_location}")
        for run in client.search_runs([experiment.experiment_id]):
            expect(run.info.artifact_uri.startswith(here), f"leads to {run.info.artifact_uri}")
            for entry in client.list_artifacts(run.info.run_id):
                if not entry.is_dir:
                    got = Path(client.download_artifacts(run.info.run_id, entry.path))
                    expect(got.is_file(), f"{entry.path} does not open")
                    opened += 1
    expect(opened > 5, f"{opened} artifacts")


OTHER = 65534  # the user nobody
