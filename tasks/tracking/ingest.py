"""Brings the journals of stage runs into MLflow, while a pipeline runs and after it.

`python -m tasks.tracking.ingest` follows a pipeline run to its end; its key comes as a line on the standard
input, so that mlflow is imported by the time a flow knows the key. With the arguments KEY PID
STARTED it follows a plain `dvc repro`, known by its process, and writes that run's journal itself.

Beside a journal lies its state: the MLflow run and the bytes that are in it. A journal that is
wholly in MLflow is deleted. Whatever ends this process, the next ingestion goes on from there.
"""

import fcntl
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamerge_core.atomic import atomic_write
from tasks.graph import dvc_yaml
from tasks.running import journal, processes
from tasks.running.commit import Commit
from tasks.running.environment import WORK, configure
from tasks.running.failures import OperationError
from tasks.running.journal import Journal
from tasks.tracking import database

if TYPE_CHECKING:
    from tasks.tracking.store import Store

FOLLOWERS = WORK / "followers"

_PAUSE = 2.0  # seconds between two looks at the journals
_STALE = 10.0  # seconds after which a journal without a first line is not being written any more


class IngestionError(OperationError):
    """Not all journals could be brought into MLflow; the message is for a user."""


def ingest() -> None:
    """Brings everything that the journals hold into MLflow; imports mlflow only if there is any.

    Waits for another process that does the same. Raises IngestionError; the journals then stay.
    """
    if not list(journal.FOLDER.glob("*.jsonl")):
        return
    from tasks.tracking.runs import DATABASE_ERRORS
    from tasks.tracking.store import Store

    try:
        with _lock():
            Ingestion(Store()).run()
    except database.TrackingError as error:
        raise _kept(str(error)) from error
    except DATABASE_ERRORS as error:
        raise _kept(database.explain(error)) from error


def _kept(reason: str) -> IngestionError:
    count = len(list(journal.FOLDER.glob("*.jsonl")))
    return IngestionError(
        f"{count} runs are not in MLflow yet: {reason}. Nothing is lost: they wait in "
        f"{journal.FOLDER}, and the next `adamerge` command brings them in."
    )


@contextmanager
def _lock() -> Iterator[None]:
    journal.FOLDER.mkdir(parents=True, exist_ok=True)
    with (journal.FOLDER / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Ingestion:
    """One pass over the journals: pipelines are begun, stages brought in, pipelines ended."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def run(self) -> None:
        # first, for then the stages of a pipeline that has ended are all there, to their ends
        news = [(path, start, _news(path, start)) for path, start in self._starts("pipeline")]
        for _, start, _ in news:
            self._store.begin_pipeline(start)
        for path, start in self._starts("stage"):
            self._stage(path, start)
        for path, start, (events, end, offset, _) in news:
            self._pipeline(path, start, events, end, offset)

    def _starts(self, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Journals and their first lines, oldest first; one that a kill left without is removed."""
        found = []
        for path in journal.FOLDER.glob("*.jsonl"):
            events, _ = journal.read(path)
            if events and events[0]["event"] == "start":
                if events[0]["kind"] == kind:
                    found.append((path, events[0]))
            elif time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
        return iter(sorted(found, key=lambda item: item[1]["time"]))

    def _stage(self, path: Path, start: Mapping[str, Any]) -> None:
        events, end, offset, state = _news(path, start)
        run_id = state.get("run_id") or self._store.begin_stage(start, self._parent(start))
        for event in events:
            if event["event"] == "metrics":
                self._store.log_points(run_id, event["points"])
        if end:
            self._store.finish_stage(run_id, start, end)
        _done(path, {"run_id": run_id, "offset": offset}, ended=end is not None)

    def _pipeline(
        self,
        path: Path,
        start: Mapping[str, Any],
        events: list[dict[str, Any]],
        end: dict[str, Any] | None,
        offset: int,
    ) -> None:
        run_id = self._store.begin_pipeline(start)
        cached = [event for event in events if event["event"] == "cached"]
        self._store.add_cached(run_id, start, cached)
        if end:
            self._store.finish_pipeline(run_id, start, end)
        _done(path, {"run_id": run_id, "offset": offset}, ended=end is not None)

    def _parent(self, start: Mapping[str, Any]) -> str:
        """The pipeline's run; one that nothing else is known of is made from the stage's facts."""
        own = {"run": start["pipeline"], "name": start["pipeline"], "kind": "pipeline"}
        return self._store.begin_pipeline({**start, **own})


def _news(
    path: Path, start: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, int, dict[str, Any]]:
    """New events of a journal, its end if it has come, the offset behind them, the state before.

    The end of a process that is gone without a word is KILLED, at the last time it gave.
    """
    state = _state(path)
    alive = processes.is_alive(
        start
    )  # before reading: what a process wrote last must not be missed
    events, offset = journal.read(path, state.get("offset", 0))
    end = next((event for event in events if event["event"] == "end"), None)
    if end is None and not alive:
        end = {"event": "end", "status": "KILLED", "time": path.stat().st_mtime}
        end["error"] = "the process was killed"
    return events, end, offset, state


def _state(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.with_suffix(".state").read_text()))
    except (OSError, ValueError):  # there is none, or it was cut: then from the beginning
        return {}


def _done(path: Path, state: Mapping[str, Any], *, ended: bool) -> None:
    beside = path.with_suffix(".state")
    if ended:  # the journal first: its state alone is nothing
        path.unlink()
        beside.unlink(missing_ok=True)
        return
    with atomic_write(beside) as temporary:
        temporary.write_text(json.dumps(state))


def start_pipeline(key: str, name: str, cmd: str) -> Journal:
    """Opens the journal of a pipeline run: the suite's parameters, the state of the code."""
    commit = Commit.current()
    log = Journal(run=key)
    suite, params = dvc_yaml.suite_name(), dvc_yaml.read_params()
    about = {"name": name, "cmd": cmd, "suite": suite, "params": params}
    log.start("pipeline", **about, commit=commit.revision, dirty=commit.dirty)
    return log


def follow(key: str, process: tuple[int, str] | None) -> int:
    """Ingests until the pipeline run `key` has ended and is in MLflow; 1 if that cannot be.

    With a `process` (pid and processes.started), the pipeline is that process: its journal is begun
    here, and ended when the process is gone.
    """
    own = start_pipeline(key, "dvc repro", "dvc repro") if process else None
    path = journal.FOLDER / f"{key}.jsonl"
    last = False
    while True:
        if own and process and not processes.runs(*process):
            own.end("FINISHED")
            own, last = None, True
        trouble = _try()
        if last or not path.exists():
            break
        time.sleep(_PAUSE)
    (FOLLOWERS / key).unlink(missing_ok=True)
    if trouble:
        print(f"adamerge: {trouble}", file=sys.stderr)
    return 1 if trouble else 0


def _try() -> str | None:
    """Ingests; what is wrong, if it fails."""
    try:
        ingest()
    except IngestionError as error:
        return str(error)
    return None


def main() -> int:
    configure()
    import tasks.tracking.store  # noqa: F401 - takes seconds, so before there is work

    if len(sys.argv) == 4:
        key, pid, started = sys.argv[1:]
        return follow(key, (int(pid), started))
    flow_key = sys.stdin.readline().strip()
    return follow(flow_key, None) if flow_key else 0


if __name__ == "__main__":
    sys.exit(main())
