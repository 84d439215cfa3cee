"""What every stage process does around its work: its journal, its progress lines, its errors.

A stage module has `run(work)` and ends with `run_stage(run)`; its own name in dvc.yaml follows from
its command. Nothing here imports torch, dvc, mlflow or prefect.
"""

import difflib
import gc
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from adamerge_core.atomic import sweep
from adamerge_core.errors import InputError, NetworkError
from tasks.graph import dvc_yaml, params_yaml
from tasks.graph.dvc_lock import read_lock
from tasks.graph.dvc_yaml import Stage
from tasks.running import failures, processes
from tasks.running.commit import Commit
from tasks.running.environment import PIPELINE_RUN, WORK, configure
from tasks.running.hashes import digest, md5, md5_of_dep, signature
from tasks.running.journal import Journal
from tasks.running.resources import Sampler
from tasks.running.work import Options, PlainReporter, Work

SCRATCH = WORK / "scratch"

UNREACHED = os.EX_TEMPFAIL
"""The exit code of a stage that a network kept from ending well: another attempt may do."""


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


def run_stage(run: Callable[[Work], None]) -> NoReturn:
    """Run the stage of dvc.yaml that has this process's command, and end the process: 0, or with a
    clear message 1, UNREACHED where it was a network's fault.

    Before: sees to it that the process ends with the DVC process above it, so that a killed
    pipeline leaves no stage behind; makes the folders of the outputs; opens the journal. After:
    hashes the outputs and closes the journal. An InputError and a full disk give one message; any
    other exception keeps its traceback.
    """
    configure()
    _print_logs()
    code = _run(_command(), run)
    gc.freeze()  # else the interpreter's end takes a second more, looking for cycles in libraries
    sys.exit(code)


def _command() -> str:
    """This process's command line as dvc.yaml has it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = module.name.removesuffix(".__main__") if module else Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def _print_logs() -> None:
    """What the core logs belongs to the stage's output."""
    core = logging.getLogger("adamerge_core")
    core.addHandler(logging.StreamHandler(sys.stdout))
    core.setLevel(logging.INFO)


def _run(cmd: str, run: Callable[[Work], None]) -> int:
    log, name = Journal(), cmd
    try:
        owner = _owner()
        stage = _find(cmd)
        name = stage.name
        params, deps = params_yaml.values(stage.params), _hash_deps(stage)
        _open(log, owner, stage, params, deps)
        scratch = _scratch_folder(stage, digest([stage.cmd, params, deps]))
        _make_room(stage)
        report, sampler = StageReporter(scratch, log), Sampler(log.metrics)
        sampler.start()
        try:
            run(Work(name, options(cmd), params_yaml.nested(params), stage.deps, report))
        finally:
            sampler.stop()
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
        return UNREACHED if isinstance(error, NetworkError) else 1


def options(cmd: str) -> Options:
    """Read the `--key value` pairs of a command."""
    words = shlex.split(cmd)[3:]
    pairs = zip(words[::2], words[1::2], strict=False)
    return Options((key.removeprefix("--"), value) for key, value in pairs)


def _find(cmd: str) -> Stage:
    known = {stage.cmd: stage for stage in dvc_yaml.read().values()}
    if cmd not in known:
        module = shlex.join(shlex.split(cmd)[:3]) + " "
        alike = [each for each in known if each.startswith(module)]
        close = difflib.get_close_matches(cmd, alike or known, n=5, cutoff=0.0)
        listed = "".join(f"\n  {each}" for each in close)
        raise InputError(
            f"no stage of {dvc_yaml.DVC_YAML} has this command; some that do:{listed}\n"
            "if params.yaml changed, write dvc.yaml anew: adamerge suite use"
        )
    return known[cmd]


def _hash_deps(stage: Stage) -> dict[str, str]:
    missing = [path for path in stage.deps if not Path(path).exists()]
    if missing:
        faults = [f"{path} does not exist" for path in missing]
        fault = InputError.listing("what the stage reads is not all there", faults)
        raise InputError(
            f"{fault}\nmake it first (dvc repro {stage.name}), or mend its path in params.yaml and "
            "write dvc.yaml anew (adamerge suite use)"
        )
    found = {path: md5_of_dep(Path(path)) for path in stage.deps}
    if PIPELINE_RUN in os.environ:  # the flow saw to it that they are what their stages wrote
        _check_deps(found)
    return found


def _check_deps(found: Mapping[str, str]) -> None:
    """Raise InputError where an input is not what its stage wrote, though its times say so.

    DVC asks only those; they are set anew, so that it sees what has happened.
    """
    written = {path: each for entry in read_lock().values() for path, each in entry.outs.items()}
    faults = []
    for path, content in found.items():
        if content != written.get(path, content):
            Path(path).touch()
            faults.append(f"{path} has the md5 {content}, and was written with {written[path]}")
    if faults:
        raise InputError(
            f"{InputError.listing('what the stage reads was damaged or changed', faults)}\n"
            "the next `adamerge run` brings it back from the cache, or makes it anew"
        )


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
    """Make the outputs' folders; remove the parts that a kill left of earlier atomic writes."""
    for folder in {Path(path).parent for path in stage.files}:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)


def _explain(error: Exception) -> str | None:
    """The message for a user; None for an error that is a fault of the program."""
    if isinstance(error, InputError):
        return str(error)
    said = failures.explain(error)
    if said:
        return said
    faults = _faults_of_params()
    return f"{error!r}\n{faults}" if faults else None


def _faults_of_params() -> str | None:
    """What is wrong with params.yaml, which no stage reads whole: it may be why one failed."""
    from tasks.suite.schema import load_params  # takes seconds

    try:
        load_params()
    except InputError as error:
        return str(error)
    return None


def _open(
    log: Journal,
    owner: psutil.Process | None,
    stage: Stage,
    params: Mapping[str, Any],
    deps: Mapping[str, str],
) -> None:
    """Write the journal's first line; outside a flow it says what process the run belongs to."""
    commit = Commit.current()
    pipeline = os.environ.get(PIPELINE_RUN)
    facts = {"stage": stage.name, "cmd": stage.cmd, "params": params, "deps": deps}
    facts["suite"] = params_yaml.suite_name()
    if pipeline is None:
        root = processes.owner_facts(owner or psutil.Process())
        facts |= root
        pipeline = f"{'dvc' if owner else 'stage'}-{root['owner_pid']}-{root['owner_started']}"
    log.start("stage", **facts, pipeline=pipeline, commit=commit.revision, dirty=commit.dirty)


def _close(log: Journal, status: str, error: str) -> None:
    """Say in the journal how it ended, if it was opened and the disk lets it."""
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
    """Have this process killed as soon as `owner`, a process above it, is gone.

    At once by the kernel where it can and `owner` is the parent; else within half a second.
    """
    processes.killed_with_parent()
    processes.at_end_of(owner.pid, lambda: os.kill(os.getpid(), signal.SIGKILL))
