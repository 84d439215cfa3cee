"""The toy project for the rooms: made once, copied for each case, and used as a user does."""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks.running.environment import configure
from tests.attacks.cases import FaultError
from tests.toy import ROOT, Project, make_project

GROWN = "data/suites/toy/grown/a.txt"
IMAGES = "data/datasets/a/8px/train_images.npy"
MERGED = "data/suites/toy/merged/seed-0/ties_merging/model.safetensors"
REPORT = "data/suites/toy/report/results.csv"
STAGES = ("raw@a", "raw@b", "raw@c", "grow@a", "grow@b", "grow@c", "merge", "report")

# the command with the toy in place of a suite, which it would refuse
COMMAND = """
import sys, types
from flows import cli, commands
commands.check = lambda: types.SimpleNamespace(name="toy", seeds=[0])
sys.exit(cli.main(sys.argv[1:]))
"""


@functools.cache
def template() -> Project:
    """Make the project that all are copies of: it has run, and MLflow has its runs."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in ("PREFECT_HOME", "DVC_SITE_CACHE_DIR", "DVC_STAGE", "ADAMERGE_PIPELINE_RUN"):
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = "1"
    place = tempfile.TemporaryDirectory(prefix="attack-toy-")
    _KEPT.append(place)
    project = make_project(Path(place.name) / "toy")
    done = project.run("flows.dvc.worker", input="\n".join(STAGES) + "\n")
    if done.stdout.count("done 0") != len(STAGES):
        raise FaultError(f"the toy project does not run: {done.stdout}{done.stderr}")
    done = call(project, "status")
    if done.returncode:
        raise FaultError(f"the toy project has no status: {done.stdout}{done.stderr}")
    import tasks.tracking.store  # noqa: F401 - each case starts with it imported

    return project


_KEPT: list[Any] = []


@functools.cache
def hashes() -> Mapping[str, str]:
    """Return the md5s of what an undisturbed run writes."""
    return template().hashes()


def copy(folder: Path) -> Project:
    """Copy the template to a folder, which becomes the current one of this process."""
    shutil.copytree(template().root, folder, symlinks=True)
    os.chdir(folder)
    for name in ("PREFECT_HOME", "DVC_SITE_CACHE_DIR"):
        os.environ.pop(name, None)
    configure()
    return Project(folder)


def call(
    project: Project, *words: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command of adamerge in a process of its own, in the project's folder."""
    arguments: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": 100} | options
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=project.root,
        capture_output="stdout" not in options,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **(env or {})},
        **arguments,
    )


def command(*words: str) -> tuple[int, str]:
    """Run a command of adamerge in this process; return its code and all that it printed."""
    from flows import cli, commands

    commands.check = lambda: SimpleNamespace(name="toy", seeds=[0])  # type: ignore[assignment, return-value]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = cli.main(words)
    return code, printed.getvalue()


def bring_up() -> tuple[dict[str, str], str]:
    """Bring all stages up to date as a run does, without Prefect; return each one's outcome, and
    what was printed.
    """
    from flows.dvc import internals
    from flows.dvc.plan import plan
    from flows.dvc.worker import Worker

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = plan()
        internals.sweep()
    worker, outcomes = Worker("attack"), {}
    for name in found.upstream:
        if name not in found.settled:
            say = lambda line: printed.write(f"{line}\n")  # noqa: E731
            outcomes[name] = worker.bring_up_to_date(name, say).value
    Worker.stop(worker)
    return outcomes, printed.getvalue()


def is_undisturbed(project: Project) -> None:
    """Raise FaultError unless data/ is that of an undisturbed run."""
    found = project.hashes()
    if found != hashes():
        wrong = sorted(set(found.items()) ^ set(hashes().items()))
        raise FaultError(f"data/ differs: {wrong}")


def expect(condition: object, told: str) -> None:
    """Raise FaultError, with what was told, unless the condition holds."""
    if not condition:
        raise FaultError(told)


def object_of(path: str) -> Path:
    """Return the place of an output in DVC's cache, by the undisturbed run's md5."""
    md5 = hashes()[path]
    return Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]


def events(*lines: Any) -> bytes:
    """Write lines of a journal."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def journals() -> Iterable[Path]:
    """List the journals that wait."""
    return Path(".adamerge/journal").glob("*.jsonl")
