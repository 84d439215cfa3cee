"""Ingestion: brings the journals of stage runs and pipeline runs into MLflow.

Beside a journal lies its state: the MLflow run and the bytes that are in it. A journal that is
wholly in MLflow is deleted. Whatever ends this process, the next ingestion goes on from there.

A flow writes a journal of its own pipeline run. Stages that `dvc repro` or `dvc exp run` started
say only which process that was: the first ingestion that meets one begins the journal of its
pipeline run, and the first one after the end of that process ends it.
"""

import csv
import fcntl
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamerge_core.atomic import atomic_write
from tasks.running import journal, processes
from tasks.running.aside import set_aside
from tasks.running.failures import OperationError
from tasks.running.journal import Journal
from tasks.running.json_files import read_object
from tasks.tracking import events
from tasks.tracking.database import ARTIFACTS, RefusedError, TrackingError

if TYPE_CHECKING:
    from tasks.tracking.store import Store

_STALE = 10.0  # seconds after which a journal without a first line is not being written any more


class IngestionError(OperationError):
    """Not all journals could be brought into MLflow; the message is for a user."""


def ingest() -> None:
    """Bring everything that the journals hold into MLflow; import mlflow only if there is any.

    Waits for another process that does the same. Raises IngestionError; the journals then stay.
    """
    if not list(journal.FOLDER.glob("*.jsonl")):
        return
    from tasks.tracking.runs import explained
    from tasks.tracking.store import Store

    try:
        with journals_held(), explained():
            Ingestion(Store()).run()
    except TrackingError as error:
        raise _kept(str(error)) from error
    except OSError as error:  # a file of a run, among MLflow's or in the journal
        raise _kept(f"{error.filename or ARTIFACTS} cannot be used ({error.strerror})") from error


def _kept(reason: str) -> IngestionError:
    count = len(list(journal.FOLDER.glob("*.jsonl")))
    return IngestionError(
        f"{count} runs are not in MLflow yet: {reason}. Nothing is lost: they wait in "
        f"{journal.FOLDER}, and the next `adamerge` command brings them in."
    )


@contextmanager
def journals_held() -> Iterator[None]:
    """Wait for others that write what the journals tell, and keep them waiting in the block."""
    journal.FOLDER.mkdir(parents=True, exist_ok=True)
    with (journal.FOLDER / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Ingestion:
    """One pass over the journals: pipelines are begun, stages brought in, pipelines ended."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def run(self) -> None:
        """Bring in what has come since the last pass.

        A journal that no run can be made of is set aside: it must not keep the others waiting.
        """
        for _, start in self._starts("stage"):
            _adopt(start)
        # before the stages, for then those of a pipeline that has ended are all there, to their
        # ends
        pipelines = self._starts("pipeline")
        news = {path: self._news(path, start) for path, start in pipelines}
        for path, start in pipelines:
            self._try(path, partial(self._store.begin_pipeline, start))
        for path, start in self._starts("stage"):
            self._try(path, partial(self._stage, path, start))
        for path, start in pipelines:
            if path.exists():
                self._try(path, partial(self._pipeline, path, start, *news[path]))

    def _try(self, path: Path, bring_in: Callable[[], object]) -> None:
        try:
            with self._store.refusals():
                bring_in()
        # besides what MLflow refuses: a file of the run that is damaged
        except (RefusedError, ValueError, LookupError, TypeError, csv.Error) as error:
            why = f"cannot be brought into MLflow: {type(error).__name__}: {error}"
            set_aside(path, why, "the others go on; bring it back when that is mended")

    def _starts(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        """List journals and their first lines, oldest first; set aside those without one.

        One that is being begun just now has none yet.
        """
        found = []
        for path in journal.FOLDER.glob("*.jsonl"):
            start = events.start_of(path) if path.is_file() else None
            if start and start["run"] == path.stem:
                found += [(path, start)] if start["kind"] == kind else []
            elif not path.is_file() or time.time() - path.stat().st_mtime > _STALE:
                set_aside(path, "begins with no line that tells of a run", "the others go on")
        return sorted(found, key=lambda item: item[1]["time"])

    def _stage(self, path: Path, start: Mapping[str, Any]) -> None:
        _adopt(start)  # it may have started during this pass
        new, end, offset, state = self._news(path, start)
        run_id = state.get("run_id") or self._store.begin_stage(start, self._parent(start))
        for event in new:
            if event["event"] == "metrics":
                self._store.log_points(run_id, event["points"])
        if end:
            self._store.finish_stage(run_id, start, end)
        _done(path, {"run_id": run_id, "offset": offset}, ended=end is not None)

    def _pipeline(
        self,
        path: Path,
        start: Mapping[str, Any],
        new: list[dict[str, Any]],
        end: dict[str, Any] | None,
        offset: int,
        state: Mapping[str, Any],
    ) -> None:
        run_id = self._store.begin_pipeline(start)
        if end and start.get("adopted"):
            end = self._store.end_of_stages(run_id, end)
        cached = [event for event in new if event["event"] == "cached"]
        self._store.add_cached(run_id, cached)
        if end:
            self._store.finish_pipeline(run_id, start, end)
        _done(path, {"run_id": run_id, "offset": offset}, ended=end is not None)

    def _news(
        self, path: Path, start: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None, int, dict[str, Any]]:
        """Read a journal's new events, its end if it has come, the offset behind them, the state
        before.

        The end of a process that is gone without a word is KILLED, at the last time it gave. A
        state that tells of a run of another database is none.
        """
        state = _state(path)
        if state and not self._store.has_run(state["run_id"]):
            state = {}
        alive = processes.is_alive(start)  # before reading: its last words must not be missed
        new, offset = events.later(path, state.get("offset", 0))
        end = next((event for event in new if event["event"] == "end"), None)
        if end is None and not alive:
            end = {"event": "end", "status": "KILLED", "time": path.stat().st_mtime}
            end["error"] = "the process was killed"
        return new, end, offset, state

    def _parent(self, start: Mapping[str, Any]) -> str:
        """Return the pipeline's run; one whose journal is lost is made from the stage's facts."""
        key = start["pipeline"]
        return self._store.begin_pipeline({**start, "run": key, "name": key, "kind": "pipeline"})


def _adopt(start: Mapping[str, Any]) -> None:
    """Begin the journal of the pipeline run that a stage names, where no flow does."""
    log = Journal(run=start["pipeline"])
    if "owner_pid" not in start or log.path.exists():
        return
    owner = {"pid": start["owner_pid"], "pid_started": start["owner_started"]}
    command = start["owner_cmd"] or start["cmd"]
    words = itertools.takewhile(str.isalpha, command.split())  # as in dvc exp run -S ...
    name = " ".join(words) if command.startswith("dvc ") else start["stage"]
    about = {key: start[key] for key in ("suite", "commit", "dirty", "time", "host", "user")}
    facts = {"name": name, "cmd": command, "params": {}, "adopted": True}
    log.start("pipeline", **facts, **about, **owner)


def _state(path: Path) -> dict[str, Any]:
    """Read what of a journal is in MLflow; empty where that is not known: from the beginning."""
    state = read_object(path.with_suffix(".state"))
    run_id, offset = state.get("run_id"), state.get("offset")
    known = isinstance(run_id, str) and isinstance(offset, int)
    return state if known and offset in range(path.stat().st_size + 1) else {}


def _done(path: Path, state: Mapping[str, Any], *, ended: bool) -> None:
    beside = path.with_suffix(".state")
    if ended:  # the journal first: its state alone is nothing
        path.unlink()
        beside.unlink(missing_ok=True)
        return
    with atomic_write(beside) as temporary:
        temporary.write_text(json.dumps(state))
