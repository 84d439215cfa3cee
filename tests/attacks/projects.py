"""The toy project for the rooms: made once, copied for each case, and used as a user does."""

import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    place = tempfile.TemporaryDirectory(prefix="attack-toy-")
    _KEPT.append(place)
    project = make_project(Path(place.name) / "toy")
    done = project.run("flows.dvc.worker", input="\n".join(STAGES) + "\n")
    if done.stdout.count("done 0") != len(STAGES):
        raise FaultError(f"the toy project does not run: {done.stdout}{done.stderr}")
    done = call(project, "status")
    if done.returncode:
        raise FaultError(f"the toy project has no status: {done.stdout}{done.stderr}")
    # each case starts with these imported; DVC logs to what is the standard output at its import
    for module in ("flows.commands", "flows.dvc.plan", "tasks.tracking.store"):
        importlib.import_module(module)
    return project


_KEPT: list[Any] = []


@functools.cache
def hashes() -> Mapping[str, str]:
    """Return the md5s of what an undisturbed run writes."""
    return template().hashes()


def copy(folder: Path) -> Project:
    """Copy the template to a folder, which becomes the current one of this process."""
    shutil.copytree(template().root, folder, symlinks=True)
    return enter(folder)


def enter(folder: Path) -> Project:
    """Make a project's folder the current one of this process, with all that follows from it."""
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


def bring_up(*only: str) -> tuple[dict[str, str], str]:
    """Bring the stages, all without names, up to date as a flow's worker does, in this process.

    Returns each one's outcome, and what was printed.
    """
    from flows.dvc import internals
    from flows.dvc.plan import plan

    os.environ["ADAMERGE_PIPELINE_RUN"] = "attack"
    outcomes, told = {}, []
    with _printed() as printed:
        internals.write_lock_whole()
        found = plan()
        internals.sweep()
        for name in only or found.upstream:
            if name not in found.settled:
                told.append(printed())
                code = internals.main(["repro", "--single-item", name])
                told.append(printed())
                outcomes[name] = _outcome(code, told[-1])
        told.append(printed())
    return outcomes, "".join(told)


def _outcome(code: int, text: str) -> str:
    from flows.dvc import internals

    if code:
        return "failed"
    kinds = {internals.RAN: "ran", internals.RESTORED: "restored", internals.UNCHANGED: "unchanged"}
    return next(kind for words, kind in kinds.items() if words in text)


@contextlib.contextmanager
def _printed() -> Iterator[Callable[[], str]]:
    """Yield a function: what this process and its children printed since its last call."""
    kept = (os.dup(1), os.dup(2))
    past: list[str] = []
    descriptor, name = tempfile.mkstemp(prefix="attack-printed-")

    def printed() -> str:
        sys.stdout.flush()
        sys.stderr.flush()
        text = Path(name).read_text(errors="replace")
        new = text[sum(map(len, past)) :]
        past.append(new)
        return new

    appending = os.open(name, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(appending, number)
    try:
        yield printed
    finally:
        printed()
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)
        os.close(descriptor)
        os.close(appending)


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
