"""DVC's view of the pipeline: the graph, what is up to date, and running one stage."""

import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.stage import PipelineStage
from voluptuous import Invalid

from adamerge_core.errors import InputError
from flows import guard
from flows.dvc.worker import DONE
from tasks.graph.dvc_yaml import DVC_LOCK, DVC_YAML, load_yaml
from tasks.running.environment import PIPELINE_RUN, WORK

_REPO_LOCK = Path(".dvc/tmp/lock")
_RWLOCK = Path(".dvc/tmp/rwlock")

# what dvc says around a stage's own lines
_RAN, _UNCHANGED, _RESTORED = "Running stage '", "didn't change, skipping", "is cached - skipping"
_NOISE = (
    "> ",
    "Updating lock file",
    "Generating lock file",
    "Use `dvc push`",
    "Data and pipelines are up to date",
    "Waiting for lock",
)


class Outcome(Enum):
    """How a stage ended."""

    RAN = "ran"
    UNCHANGED = "unchanged"
    RESTORED = "restored"
    FAILED = "failed"
    BLOCKED = "not run"


@dataclass(frozen=True)
class Plan:
    """The graph in dvc.yaml, and what of it is not up to date."""

    upstream: Mapping[str, tuple[str, ...]]
    """Each stage's direct upstream stages, in an order in which the stages can run."""

    changed: Mapping[str, str]
    """The stages that are not up to date, and why."""

    @property
    def settled(self) -> set[str]:
        """Stages with nothing to do: up to date, and so is everything upstream."""
        found: set[str] = set()
        for name, above in self.upstream.items():
            if name not in self.changed and found.issuperset(above):
                found.add(name)
        return found


def plan() -> Plan:
    """Reads dvc.yaml and compares it with the files there are.

    Mends first what a kill may have left behind. Raises InputError: dvc.yaml has a fault, or
    another DVC process is at work here.
    """
    mend()
    try:
        with Repo() as repo:
            return Plan(_upstream(repo), _changed(repo))
    except LockError as error:
        raise InputError(
            f"another DVC process is at work in {Path.cwd()}: let it end, then run this again"
        ) from error
    except DvcException as error:
        raise InputError(f"{DVC_YAML}: {error}") from error


def _upstream(repo: Repo) -> dict[str, tuple[str, ...]]:
    """Stages after all that is upstream of them, else in the order of dvc.yaml."""
    graph = repo.index.graph
    above = {
        stage.addressing: tuple(sorted(other.addressing for other in graph.successors(stage)))
        for stage in repo.index.stages
        if isinstance(stage, PipelineStage)
    }
    ordered: dict[str, tuple[str, ...]] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for other in above[name]:
                add(other)
            ordered[name] = above[name]

    for name in above:
        add(name)
    return ordered


def _changed(repo: Repo) -> dict[str, str]:
    return {name: _reason(changes) for name, changes in repo.status().items()}


def _reason(changes: list[Any]) -> str:
    """DVC's findings in words: `changed deps: a.npy, b.npy and 3 more`."""
    words = []
    for change in changes:
        for kind, what in change.items() if isinstance(change, dict) else [(str(change), {})]:
            names = list(what) if isinstance(what, dict) else [str(what)]
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            words.append(f"{kind}: {', '.join(names[:2])}{more}" if names else kind)
    return "; ".join(words)


def mend() -> None:
    """Sets right what a killed DVC process may have left: a torn dvc.lock, locks of no one.

    DVC writes dvc.lock in place. Without it nothing is lost: DVC's run cache knows every
    finished stage.
    """
    with _repo_lock() as free:
        if not free:  # another DVC process is writing just now
            return
        if DVC_LOCK.exists() and not _is_whole(DVC_LOCK):
            WORK.mkdir(exist_ok=True)
            DVC_LOCK.replace(WORK / "dvc.lock.torn")
            print(f"{DVC_LOCK} was torn by a kill: set aside; finished stages come from the cache")
        if _RWLOCK.exists() and not _is_held(_RWLOCK):
            _RWLOCK.unlink(missing_ok=True)


@contextmanager
def _repo_lock() -> Iterator[bool]:
    """DVC's own lock of the project, held if it is free; yields whether it was."""
    if not _REPO_LOCK.exists():
        yield True
        return
    with _REPO_LOCK.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _is_whole(lock: Path) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(lock))
    except (yaml.YAMLError, Invalid, UnicodeDecodeError):
        return False
    return True


def _is_held(rwlock: Path) -> bool:
    """Whether a process named in DVC's read and write locks is a DVC process that lives."""
    try:
        held = json.loads(rwlock.read_text())
        holders = [
            info["pid"]
            for mode in ("read", "write")
            for infos in held.get(mode, {}).values()
            for info in (infos if isinstance(infos, list) else [infos])
            if info
        ]
    except (ValueError, AttributeError, TypeError, KeyError):  # torn as well
        return False
    return any(map(_is_dvc, holders))


def _is_dvc(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return any("dvc" in argument for argument in psutil.Process(pid).cmdline())
    return False


class Worker:
    """A guarded process that brings one stage after the other up to date (flows.dvc.worker)."""

    def __init__(self, pipeline: str) -> None:
        """`pipeline` names the pipeline run that the stages belong to."""
        self._process = guard.start(
            ["flows.dvc.worker"],
            more={PIPELINE_RUN: pipeline},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def bring_up_to_date(self, name: str, show: Callable[[str], None]) -> Outcome:
        """Waits for the stage's end, handing on its lines without DVC's own."""
        source, sink = self._process.stdout, self._process.stdin
        if source is None or sink is None:
            raise RuntimeError("the worker was started without pipes")
        with suppress(BrokenPipeError):
            sink.write(f"{name}\n")
            sink.flush()
        outcome = Outcome.FAILED
        for line in source:
            text = line.rstrip()
            if text.startswith(DONE):
                return outcome if text == f"{DONE}0" else Outcome.FAILED
            if text.startswith(_RAN):
                outcome = Outcome.RAN
            elif text.endswith(_UNCHANGED):
                outcome = Outcome.UNCHANGED
            elif _RESTORED in text:
                outcome = Outcome.RESTORED
            elif text and not text.startswith(_NOISE):
                show(text)
        show("its process was killed")
        return Outcome.FAILED

    @staticmethod
    def stop(*workers: "Worker") -> None:
        """Ends workers with all that they started."""
        for worker in workers:
            worker._close(worker._process.stdin)  # the end of its work, after the present stage
        guard.stop(*(worker._process for worker in workers))
        for worker in workers:
            worker._close(worker._process.stdout)

    def _close(self, pipe: IO[str] | None) -> None:
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
