"""Journals that begin with no run, and lines in them that are no events."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks import projects
from tests.attacks.cases import Case
from tests.attacks.damage.harms import case
from tests.attacks.projects import (
    expect,
)

START = {
    "event": "start",
    "kind": "stage",
    "run": "good",
    "time": 1.7e9,
    "pid": 999999,
    "pid_started": None,
    "host": "another",
    "user": "someone",
    "stage": "raw@a",
    "cmd": "python -m work --kind raw --task a",
    "params": {"raw.length": 3},
    "deps": {"work.py": "0" * 32},
    "suite": "toy",
    "pipeline": "pipe",
    "commit": None,
    "dirty": True,
}
END = {"event": "end", "status": "FINISHED", "time": 1.7e9 + 1, "outs": {}, "signature": "s"}


def _bad_starts() -> dict[str, bytes]:
    """Make first lines that no run begins with."""
    wrong: dict[str, Any] = {
        "time": ["x", -1, 1e300, None, float("nan"), float("inf")],
        "run": [7, "", None, "another", ["good"]],
        "params": [[], "x", None, 3],
        "deps": [[], {"a": 1}, "x"],
        "suite": [None, 3, {}],
        "pipeline": [None, "../../escape", "a/b", ""],
        "stage": [None, 4],
        "kind": ["report", None, 5, "Stage"],
        "pid": ["x", None],
        "event": ["begin", "end", None],
        "dirty": ["yes", None],
        "cmd": [None, []],
    }
    made = {
        f"{key} is {value!r}": projects.events({**START, "run": "bad", key: value})
        for key, values in wrong.items()
        for value in values
    }
    for key in ("kind", "run", "time", "stage", "pipeline", "suite", "host", "user", "deps"):
        kept = {k: v for k, v in {**START, "run": "bad"}.items() if k != key}
        made[f"without {key}"] = projects.events(kept)
    text = projects.events({**START, "run": "bad"})
    return made | {
        "empty": b"",
        "no JSON": b"hello\n",
        "garbage": bytes(range(256)) + b"\n",
        "not UTF-8": text.replace(b"toy", b"t\xffy"),
        "cut": text[:80],
        "cut, then a line": text[:80] + b"\n",
        "a list": b"[1]\n",
        "a number": b"1\n",
        "nested without end": b"[" * 100_000 + b"\n",
        "5,000 digits": text.replace(b"1700000000.0", b"1" * 5000),
        "20 MB": b'{"event": "start", "x": "' + b"x" * 20_000_000 + b'"}\n',
        "NULs": b"\0" * 4096 + b"\n",
    }


def _bad_lines() -> dict[str, bytes]:
    """Make later lines that are no events."""
    point = {"step": 0, "time": 1.7e9, "values": {"loss": 1.0}}
    points: list[Any] = [
        None,
        "x",
        [1],
        [{**point, "step": 2**70}],
        [{**point, "step": "x"}],
        [{**point, "time": 1e300}],
        [{**point, "values": {"loss": "x"}}],
        [{**point, "values": [1]}],
        [{"step": 0}],
    ]
    made = {
        f"points {n}": projects.events({"event": "metrics", "points": p})
        for n, p in enumerate(points)
    }
    return made | {
        "an unknown event": projects.events({"event": "party", "time": 1.0}),
        "no event": projects.events({"time": 1.0}),
        "an end of unknown status": projects.events({**END, "status": "DONE"}),
        "an end whose outs are a list": projects.events({**END, "outs": [1]}),
        "an end without a time": projects.events({"event": "end", "status": "FINISHED"}),
        "garbage": bytes(range(1, 256)) + b"\n",
        "a list": b"[1]\n",
        "100 MB": b'{"event": "' + b"x" * 100_000_000 + b'"}\n',
    }


def cases() -> Iterator[Case]:
    def ingested(project: projects.Project) -> None:
        """A good journal is in MLflow, and none waits."""
        from tasks.tracking import ingest
        from tasks.tracking.store import Store

        for path in projects.journals():
            if path.exists():
                os.utime(path, (1e9, 1e9))
        ingest.ingest()
        expect(not list(projects.journals()), f"some wait: {list(projects.journals())}")
        run = Store().search("tags.`adamerge.journal` = 'good'")
        expect(run is not None and run.info.status == "FINISHED", "the good journal is not there")

    def write(name: str, content: bytes) -> Path:
        path = Path(".adamerge/journal", f"{name}.jsonl")
        path.write_bytes(content)
        return path

    def beside(bad: dict[str, bytes], project: projects.Project) -> int:
        write("good", projects.events(START, END))
        for n, content in enumerate(bad.values()):
            write(f"bad-{n}", content.replace(b'"run": "bad"', f'"run": "bad-{n}"'.encode()))
        ingested(project)
        kept = list(Path(".adamerge/aside").glob("bad-*"))
        expect(len(kept) == len(bad), f"{len(bad)} are to be set aside, {len(kept)} are")
        return len(bad)

    starts = _bad_starts()
    yield case("journals that begin with no run", partial(beside, starts), seconds=240.0)
    for name in ("without kind", "cut", "not UTF-8", "20 MB"):
        yield case(f"a journal whose start is: {name}", partial(beside, {name: starts[name]}))

    def within(lines: dict[str, bytes], project: projects.Project) -> int:
        write("good", projects.events(START) + b"".join(lines.values()) + projects.events(END))
        ingested(project)
        return len(lines)

    yield case(
        "lines in a journal that are no events", partial(within, _bad_lines()), seconds=240.0
    )

    def place(name: str, make: Callable[[Path], object], project: projects.Project) -> None:
        write("good", projects.events(START, END))
        make(Path(".adamerge/journal", name))
        ingested(project)

    yield case("a folder among the journals", partial(place, "x.jsonl", Path.mkdir))
    yield case("a fifo among the journals", partial(place, "x.jsonl", os.mkfifo))
    yield case(
        "a link to nothing among the journals",
        partial(place, "x.jsonl", lambda p: p.symlink_to("/no")),
    )
    states = [b"{", b'{"run_id": 7, "offset": 0}']
    states += [b'{"run_id": "of another database", "offset": 1}', b'{"run_id": "x", "offset": 1e9}']
    for state in states:
        yield case(
            f"the state of a journal is {state!r}",
            partial(place, "good.state", lambda path, state=state: path.write_bytes(state)),
        )

    def refused(project: projects.Project) -> None:
        write("good", projects.events(START, END))
        odd = {**START, "run": "odd", "suite": "x" * 20_000}
        write("odd", projects.events(odd, END))
        ingested(project)

    yield case("a journal that MLflow refuses", refused)
