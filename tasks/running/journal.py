"""The journal of a stage run or a pipeline run: JSON lines in .adamerge/journal/<id>.jsonl.

A stage process only appends lines here (importing mlflow would cost each of them 2.5 CPU-seconds);
tasks.tracking brings them into MLflow. Each line is one write, so a process killed at any moment
leaves whole lines and at most one broken last one.
"""

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.graph import params_yaml
from tasks.running.commit import Commit
from tasks.running.environment import WORK
from tasks.running.processes import process_facts

FOLDER = WORK / "journal"

# metrics are written at most this often; MLflow takes a batch as fast as a single value
_BATCH_SECONDS = 1.0
_BATCH_POINTS = 200

# of a first line, in bytes; it has the parameters and the names of what a stage reads
_LONGEST_START = 16 * 2**20


class Journal:
    """Appends one run's events to its file; metrics may come from several threads."""

    def __init__(self, folder: Path = FOLDER, run: str | None = None) -> None:
        self.run = run or uuid.uuid4().hex
        self.path = folder / f"{self.run}.jsonl"
        self._points: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def start(self, kind: str, **facts: Any) -> None:
        """Write the first line. `kind` is pipeline or stage; `facts` must go into JSON."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._append({"event": "start", "kind": kind, "run": self.run} | process_facts() | facts)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each named curve; kept back for up to a second, to put many in a line."""
        point: dict[str, Any] = {"step": step, "time": time.time()}
        point["values"] = {name: float(v) for name, v in values.items()}
        with self._lock:
            self._points.append(point)
            waited = time.monotonic() - self._written
            if len(self._points) >= _BATCH_POINTS or waited >= _BATCH_SECONDS:
                self._flush()

    def cached(self, stage: str, **facts: Any) -> None:
        """Note in a pipeline's journal a stage that was up to date, and what it is known by."""
        self._append({"event": "cached", "stage": stage, "time": time.time()} | facts)

    def end(self, status: str, **facts: Any) -> None:
        """Write the last line. `status` is FINISHED, FAILED or KILLED, as MLflow names them."""
        with self._lock:
            self._flush()
        self._append({"event": "end", "status": status, "time": time.time()} | facts)

    def _flush(self) -> None:
        if self._points:
            self._append({"event": "metrics", "points": self._points})
        self._points = []
        self._written = time.monotonic()

    def _append(self, event: Mapping[str, Any]) -> None:
        line = (json.dumps(event) + "\n").encode()
        with open(self.path, "ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(line) < len(line):  # a disk that is nearly full takes a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                with suppress(OSError):
                    file.truncate(start)
                raise


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the whole events of a journal from byte `offset` on; return also the offset behind
    them.

    A last line without its end (still being written, or cut by a kill) is left for later.
    """
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    events = [_event(line) for line in whole.splitlines()]
    return [event for event in events if event], offset + len(whole)


def first(path: Path) -> dict[str, Any] | None:
    """Read the first event of a journal; None where its first line is no event, or not whole."""
    with path.open("rb") as file:
        line = file.readline(_LONGEST_START)
    return _event(line) if line.endswith(b"\n") else None


def _event(line: bytes) -> dict[str, Any] | None:
    """None for a line that is no JSON object: a damaged disk must not keep the other lines from
    being read.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def start_pipeline(key: str, name: str, cmd: str, **facts: Any) -> Journal:
    """Open the journal of a pipeline run: the parameters, the state of the code, `facts`."""
    commit = Commit.current()
    log = Journal(run=key)
    suite, params = params_yaml.suite_name(), params_yaml.read_params()
    about = {"name": name, "cmd": cmd, "suite": suite, "params": params, **facts}
    log.start("pipeline", **about, commit=commit.revision, dirty=commit.dirty)
    return log
