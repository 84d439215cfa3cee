"""Whole runs after damage."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import case, flip
from tests.attacks.projects import (
    GROWN,
    expect,
    is_undisturbed,
)


def cases() -> Iterator[Case]:
    def run(harm: Callable[[], object], told: list[str], project: projects.Project) -> None:
        harm()
        done = projects.call(project, "run", timeout=200)
        said(done.stdout + done.stderr, [*told, "8 stages in"])
        expect(done.returncode == 0, done.stderr)
        is_undisturbed(project)

    def everything() -> None:
        flip(projects.object_of(GROWN))
        Path(GROWN).unlink()
        Path("dvc.lock").unlink()
        Path("dvc.lock").mkdir()
        Path(".adamerge/journal/bad.jsonl").write_text('{"event": "start"}\n')
        os.utime(".adamerge/journal/bad.jsonl", (1e9, 1e9))
        Path(".adamerge/prefect").mkdir(exist_ok=True)
        Path(".adamerge/prefect/prefect.db").write_bytes(bytes(range(256)))
        Path(".adamerge/flow_runs").write_text("x")
        Path("data/.AbCdEfGhIjKlMnOpQrStUv.tmp").write_text("half")

    told = ["is damaged: its md5 is", "dvc.lock is no file", "prefect.db is damaged", "cut copies"]
    yield case("a run after all of it", partial(run, everything, told), seconds=240.0)

    def no_records(project: projects.Project) -> None:
        Path("mlflow.db").write_bytes(bytes(range(256)) * 50)
        Path(GROWN).unlink()
        done = projects.call(project, "run", timeout=200)
        said(done.stdout + done.stderr, ["8 stages in", "mlflow.db is damaged", "Nothing is lost"])
        is_undisturbed(project)
        expect(list(projects.journals()), "the journal of the run is gone")

    yield case("a run while mlflow.db is damaged", no_records, seconds=240.0)
