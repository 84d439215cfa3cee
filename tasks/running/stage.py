"""What every stage process does around its work: its journal, its progress lines, its errors.

A stage module's main() is `run_stage("finetune@mnist-0", body)`; `body` gets a Reporter and does
the work. Nothing here imports torch, dvc, mlflow or prefect.
"""

import ctypes
import errno
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

import psutil

from adamerge_core.errors import InputError
from tasks.graph import dvc_yaml
from tasks.graph.dvc_yaml import Stage
from tasks.running import processes
from tasks.running.commit import Commit
from tasks.running.environment import PIPELINE_RUN, WORK, configure
from tasks.running.hashes import digest, md5, md5_of_dep, signature
from tasks.running.journal import Journal

SCRATCH = WORK / "scratch"

_PR_SET_PDEATHSIG = 1


class Reporter(Protocol):
    """Where a stage's work tells how far it is."""

    @property
    def scratch(self) -> Path | None:
        """A folder for state to resume from after a kill; None where nothing is to be kept."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` steps are done; `text` says what else a person wants to see."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point of each named curve."""


class PlainReporter:
    """A Reporter with nothing around it: prints progress, drops metrics."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._started: tuple[float, int] | None = None
        self._printed = 0.0

    @property
    def scratch(self) -> Path | None:
        return self._scratch

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Prints at most one line a second, and always the last: `120/200  8.3/s  10 s left
        text`.
        """
        now = time.monotonic()
        if self._started is None or done < self._started[1]:
            # a resumed stage starts at a later step: what came before is no part of the rate
            self._started = (now, done)
        if done < total and now - self._printed < 1.0:
            return
        self._printed = now
        since, first = self._started
        rate = (done - first) / (now - since) if now > since else 0.0
        parts = [f"{done}/{total}"]
        if rate:
            parts.append(f"{rate:.3g}/s")
            parts.append(f"{(total - done) / rate:.0f} s left")
        print("  ".join([*parts, text]).rstrip(), flush=True)
        if done >= total:
            self._started = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        pass


class StageReporter(PlainReporter):
    """The Reporter of a stage process: its metrics go into the journal."""

    def __init__(self, scratch: Path, log: Journal) -> None:
        super().__init__()
        self._folder, self._journal = scratch, log

    @property
    def scratch(self) -> Path:
        """`.adamerge/scratch/<stage>-<md5 of its command, parameters and dependencies>`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._journal.metrics(values, step)


def run_stage(name: str, body: Callable[[Reporter], None]) -> NoReturn:
    """Runs `body` as the stage `name` of dvc.yaml and ends the process: 0, or 1 with a clear
    message.

    Before: sees to it that the process ends with the DVC process above it, so that a killed
    pipeline leaves no stage behind; makes the folders of the outputs; opens the journal. After:
    hashes the outputs and closes the journal. An InputError and a full disk give one message; any
    other exception keeps its traceback.
    """
    configure()
    _print_logs()
    sys.exit(_run(name, body))


def _print_logs() -> None:
    """What the core logs belongs to the stage's output."""
    core = logging.getLogger("adamerge_core")
    core.addHandler(logging.StreamHandler(sys.stdout))
    core.setLevel(logging.INFO)


def _run(name: str, body: Callable[[Reporter], None]) -> int:
    log = Journal()
    try:
        owner = _owner()
        stage = _find(name)
        params, deps = dvc_yaml.params_of(stage), _hash_deps(stage)
        _open(log, owner, stage, params, deps)
        scratch = _scratch_folder(stage, digest([stage.cmd, params, deps]))
        _make_room(stage)
        body(StageReporter(scratch, log))
        outs = _hash_outs(stage)
        log.end("FINISHED", outs=outs, signature=signature(stage.name, deps, params, outs))
        shutil.rmtree(scratch, ignore_errors=True)
        return 0
    except KeyboardInterrupt:
        _close(log, "KILLED", "interrupted")
        return 130
    except Exception as error:
        message = _explain(error)
        _close(log, "FAILED", message or repr(error))
        if message is None:
            raise
        print(f"{name}: {message}", file=sys.stderr, flush=True)
        return 1


def _find(name: str) -> Stage:
    known = dvc_yaml.read()
    if name not in known:
        raise InputError(
            f"no stage of {dvc_yaml.DVC_YAML} has this name; known: {', '.join(known) or 'none'}\n"
            "if params.yaml changed, write dvc.yaml anew: adamerge suite use NAME"
        )
    return known[name]


def _hash_deps(stage: Stage) -> dict[str, str]:
    missing = [path for path in stage.deps if not Path(path).exists()]
    if missing:
        faults = [f"{path} does not exist" for path in missing]
        fault = InputError.listing("what the stage reads is not all there", faults)
        raise InputError(
            f"{fault}\nmake it first (dvc repro {stage.name}), or mend its path in params.yaml and "
            "write dvc.yaml anew (adamerge suite use)"
        )
    return {path: md5_of_dep(Path(path)) for path in stage.deps}


def _hash_outs(stage: Stage) -> dict[str, str]:
    missing = [path for path in stage.files if not Path(path).exists()]
    if missing:
        raise RuntimeError(f"the stage ended without writing {', '.join(missing)}")
    return {path: md5(Path(path)) for path in stage.files}


def _scratch_folder(stage: Stage, key: str) -> Path:
    """The folder for this very work; what was kept for other parameters or inputs is removed."""
    folder = SCRATCH / f"{stage.name}-{key}"
    for other in SCRATCH.glob(f"{stage.name}-{'?' * len(key)}"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _make_room(stage: Stage) -> None:
    """Makes the outputs' folders; removes the parts that a kill left of earlier atomic writes."""
    for path in map(Path, stage.files):
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.glob(f".{path.stem}.*.part{path.suffix}"):
            part.unlink(missing_ok=True)


def _explain(error: Exception) -> str | None:
    """The message for a user; None for an error that is a fault of the program."""
    if isinstance(error, InputError):
        return str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):  # also from safetensors and torch
        free = shutil.disk_usage(".").free / 2**20
        return (
            f"the disk is full ({free:.0f} MB free in {Path.cwd()}): free some space and run the "
            "same command again; finished stages are kept, this one resumes"
        )
    return None


def _open(
    log: Journal,
    owner: psutil.Process | None,
    stage: Stage,
    params: Mapping[str, Any],
    deps: Mapping[str, str],
) -> None:
    """Writes the journal's first line; outside a flow it says what process the run belongs to."""
    commit = Commit.current()
    pipeline = os.environ.get(PIPELINE_RUN)
    facts = {"stage": stage.name, "cmd": stage.cmd, "params": params, "deps": deps}
    facts["suite"] = dvc_yaml.suite_name()
    if pipeline is None:
        root = processes.owner_facts(owner or psutil.Process())
        facts |= root
        pipeline = f"{'dvc' if owner else 'stage'}-{root['owner_pid']}-{root['owner_started']}"
    log.start("stage", **facts, pipeline=pipeline, commit=commit.revision, dirty=commit.dirty)


def _close(log: Journal, status: str, error: str) -> None:
    """Says in the journal how it ended, if it was opened and the disk lets it."""
    if log.path.exists():
        with suppress(OSError):
            log.end(status, error=error)


def _owner() -> psutil.Process | None:
    """The DVC process that runs this stage, if one does; from here on this process ends with it.

    DVC sets DVC_STAGE for what it starts: the first process above without it is DVC itself, whether
    or not a shell is in between.
    """
    if "DVC_STAGE" not in os.environ:
        return None
    for process in psutil.Process().parents():
        try:
            inside = "DVC_STAGE" in process.environ()
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if not inside:
            _end_with(process)
            return process
    os.kill(os.getpid(), signal.SIGKILL)  # it is gone already
    return None


def _end_with(owner: psutil.Process) -> None:
    """Has this process killed as soon as `owner`, a process above it, is gone.

    At once by the kernel where it can (Linux) and `owner` is the parent; else within half a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    processes.at_end_of(owner.pid, lambda: os.kill(os.getpid(), signal.SIGKILL))
