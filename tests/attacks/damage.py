"""Damage: what a disk, a full disk, a kill or a hand does to the files around the results."""

import contextlib
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write, sweep
from tests.attacks import projects
from tests.attacks.cases import Case, Severity, said
from tests.attacks.projects import (
    GROWN,
    IMAGES,
    MERGED,
    REPORT,
    STAGES,
    bring_up,
    command,
    expect,
    is_undisturbed,
)

Harm = Callable[[Path], object]


def cases() -> Iterator[Case]:
    """Give all cases of the room."""
    projects.hashes()
    for make in (_cache, _run_cache, _data, _lock, _journals, _mlflow, _prefect, _places, _small):
        yield from make()
    for make in (_broken_configs, _leftovers, _whole_runs):
        yield from make()


def _case(
    name: str, run: Callable[[projects.Project], Any], severity: Severity = "medium", **more: Any
) -> Case:
    """Make a case of what is done in a copy of the toy project."""

    def within(folder: Path) -> int | None:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = run(projects.copy(folder / "toy"))
        return answer if isinstance(answer, int) else None

    return Case(name, within, severity, **{"seconds": 120.0, "memory": None} | more)


# --- how a file is harmed, its times kept -------------------------------------------------------


def _rewrite(path: Path, content: bytes) -> None:
    """Write other bytes in place, with the mode, the times and the inode that were there."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    _rewrite(path, bytes(content))


def _cut(path: Path) -> None:
    _rewrite(path, path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    _rewrite(path, b"")


def _lengthen(path: Path) -> None:
    _rewrite(path, path.read_bytes() + b"\0")


def _garbage(path: Path) -> None:
    _rewrite(path, bytes(range(256)) * 20)


def _other(path: Path) -> None:
    """The content of another file of the cache."""
    others = [p for p in path.parent.parent.glob("*/*") if p.is_file() and p != path]
    _rewrite(path, max(others).read_bytes())


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _full_folder(path: Path) -> None:
    _folder(path)
    (path / "x").write_text("x")


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path, to: str = "/nowhere/at/all") -> None:
    path.unlink()
    path.symlink_to(to)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# --- DVC's cache --------------------------------------------------------------------------------

_HARMS: dict[str, Harm] = {
    "one bit flipped": _flip,
    "the first bit flipped": partial(_flip, where=0.0),
    "the last bit flipped": partial(_flip, where=1.0),
    "cut": _cut,
    "emptied": _empty,
    "a byte longer": _lengthen,
    "garbage": _garbage,
    "another object's content": _other,
    "a folder": _folder,
    "a folder with a file": _full_folder,
    "a link to nothing": _link,
    "a link to /dev/zero": partial(_link, to="/dev/zero"),
    "a fifo": _fifo,
}


def _cache() -> Iterator[Case]:
    def restored(harm: Harm, path: str, kept_lock: bool, project: projects.Project) -> None:
        cached = projects.object_of(path)
        harm(cached)
        Path(path).unlink()
        if not kept_lock:
            Path("dvc.lock").unlink()
        outcomes, told = bring_up()
        is_undisturbed(project)
        stage = next(s for s in STAGES if outcomes.get(s) == "ran")
        expect(list(outcomes.values()).count("ran") == 1, f"{stage} alone must run: {outcomes}")
        if harm is not _remove:
            said(told, [str(cached), ".adamerge/aside", "its stage runs again"])
            expect(any(Path(".adamerge/aside").iterdir()), "what was damaged is gone")
        expect(cached.is_file(), "the cache has no whole object again")

    for name, harm in {**_HARMS, "removed": _remove}.items():
        for path in (GROWN, MERGED) if harm in (_flip, _cut) else (GROWN,):
            yield _case(
                f"cache object of {path}: {name}", partial(restored, harm, path, True), "medium"
            )
    for path in (IMAGES, REPORT):
        yield _case(f"cache object of {path}, no dvc.lock", partial(restored, _flip, path, False))

    def all_objects(harm: Harm, project: projects.Project) -> None:
        for path in list(Path(".dvc/cache/files/md5").glob("*/*")):
            harm(path)
        shutil.rmtree("data")
        bring_up()
        is_undisturbed(project)

    for name in ("one bit flipped", "emptied", "a folder"):
        yield _case(f"all cache objects: {name}", partial(all_objects, _HARMS[name]))

    def parent(project: projects.Project) -> None:
        folder = projects.object_of(GROWN).parent
        shutil.rmtree(folder)
        folder.write_text("a file")
        Path(GROWN).unlink()
        _, told = bring_up()
        said(told, [str(folder), "is no folder"])
        is_undisturbed(project)

    yield _case("a folder of the cache is a file", parent)

    def too_large(project: projects.Project) -> None:
        os.environ["ADAMERGE_VERIFY_BELOW_GB"] = "0.00000001"
        Path(GROWN).unlink()
        outcomes, told = bring_up()
        said(told, ["restored unverified"])
        expect(outcomes["grow@a"] == "restored", str(outcomes))

    yield _case("a file above the setting's size is restored unverified", too_large)

    def bad_setting(value: str, project: projects.Project) -> None:
        os.environ["ADAMERGE_VERIFY_BELOW_GB"] = value
        code, told = command("status")
        said(told, ["ADAMERGE_VERIFY_BELOW_GB", repr(value), "must be a number"])
        expect(code == 2, f"code {code}")

    for value in ("", "many", "-1", "nan"):
        yield _case(f"the setting is {value!r}", partial(bad_setting, value), "low")


def _run_cache() -> Iterator[Case]:
    def entries() -> list[Path]:
        return [p for p in Path(".dvc/cache/runs").glob("*/*/*") if p.is_file()]

    def change(old: str, new: str, path: Path) -> None:
        _rewrite(path, path.read_text().replace(old, new).encode())

    harms: dict[str, Harm] = {
        **{n: _HARMS[n] for n in ("one bit flipped", "cut", "emptied", "garbage", "a folder")},
        "not UTF-8": lambda path: _rewrite(path, b"\xff\xfe cmd"),
        "a list": lambda path: _rewrite(path, b"[1, 2]"),
        "nested without end": lambda path: _rewrite(path, b"[" * 5000),
        "another path": partial(change, "path: data/", "path: data/x/"),
        "a path out of the project": partial(change, "path: data/", "path: ../stolen/"),
        "another md5": partial(change, "md5: ", "md5: 0"),
        "another command": partial(change, "cmd: python", "cmd: touch run; python"),
        "a link to nothing": _link,
    }

    def damaged(harm: Harm, project: projects.Project) -> None:
        for path in entries():
            harm(path)
        Path("dvc.lock").unlink()
        Path(IMAGES).unlink()
        outcomes, _ = bring_up("raw@a")
        is_undisturbed(project)
        expect(outcomes == {"raw@a": "ran"}, str(outcomes))
        expect(not Path("../stolen").exists(), "a file was written outside of the project")

    for name, harm in harms.items():
        yield _case(f"run cache, all entries: {name}", partial(damaged, harm))


def _data() -> Iterator[Case]:
    def noticed(harm: Harm, path: str, old: str, new: str, project: projects.Project) -> None:
        """An input is damaged, its times kept: the stage that reads it says so."""
        command("status")  # DVC knows the file's hash now, and looks at its times only
        harm(Path(path))
        project.replace("params.yaml", old, new)  # of a stage that reads it
        stages = ("raw@a", "grow@a") if path == IMAGES else ("grow@a", "merge")
        _, told = bring_up(*stages)
        said(told, ["was damaged or changed", path, "the next `adamerge run` brings it back"])
        bring_up(*stages)
        expect(project.hashes()[path] == projects.hashes()[path], "the damage stays")

    for name, harm in (("one bit flipped", _flip), ("turned round", _reversed)):
        for path, *change in (
            (IMAGES, "steps: 5", "steps: 6"),
            (GROWN, "scaling: 0.3", "scaling: 0.4"),
        ):
            yield _case(f"{path}, times kept: {name}", partial(noticed, harm, path, *change))

    def by_hand(harm: Harm, path: str, project: projects.Project) -> None:
        harm(Path(path))
        if Path(path).exists():
            os.utime(path)  # a hand does not keep the time
        bring_up()
        is_undisturbed(project)

    for name in ("garbage", "a folder", "a link to nothing", "emptied"):
        yield _case(f"{GROWN}: {name}", partial(by_hand, _HARMS[name], GROWN))


def _reversed(path: Path) -> None:
    _rewrite(path, path.read_bytes()[::-1])


# --- dvc.lock -----------------------------------------------------------------------------------


def _lock() -> Iterator[Case]:
    def write(content: bytes | Callable[[bytes], bytes]) -> None:
        lock = Path("dvc.lock")
        lock.write_bytes(content if isinstance(content, bytes) else content(lock.read_bytes()))

    def is_folder(full: bool) -> None:
        Path("dvc.lock").unlink()
        Path("dvc.lock").mkdir()
        if full:
            Path("dvc.lock/x").write_text("x")

    conflict = b"<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n"
    contents: dict[str, bytes | Callable[[bytes], bytes]] = {
        "empty": b"",
        "garbage": bytes(range(256)),
        "a NUL": lambda text: text[:200] + b"\0" + text[200:],
        "not UTF-8": lambda text: text + b"# \xff\n",
        "a conflict of git": lambda text: conflict + text,
        "cut at a tenth": lambda text: text[: len(text) // 10],
        "cut at a third": lambda text: text[: len(text) // 3],
        "cut in the last line": lambda text: text[:-5],
        "a list": b"[1, 2]\n",
        "a number": b"7\n",
        "nested without end": b"[" * 5000,
        "stages is a list": b"schema: '2.0'\nstages: []\n",
        "a stage is a text": b"schema: '2.0'\nstages: {merge: x}\n",
        "of a newer schema": b"schema: '9.0'\nstages: {}\n",
    }
    harms: dict[str, Callable[[], object]] = {
        **{name: partial(write, content) for name, content in contents.items()},
        "a folder": partial(is_folder, False),
        "a folder with a file": partial(is_folder, True),
    }

    def restored(harm: Callable[[], object], project: projects.Project) -> None:
        Path(IMAGES).unlink()
        harm()
        code, told = command("status")
        said(told, [".adamerge/aside/dvc.lock.1", "never run"])
        expect(code == 0, told)
        outcomes, _ = bring_up("raw@a")
        is_undisturbed(project)
        expect(outcomes == {"raw@a": "restored"}, f"was computed again: {outcomes}")

    for name, harm in harms.items():
        yield _case(f"dvc.lock: {name}", partial(restored, harm))


# --- journals and MLflow ------------------------------------------------------------------------

_START = {
    "event": "start",
    "kind": "stage",
    "run": "good",
    "time": 1.7e9,
    "pid": 999999,
    "pid_started": None,
    "host": "another",
    "stage": "raw@a",
    "cmd": "python -m work --kind raw --task a",
    "params": {"raw.length": 3},
    "deps": {"work.py": "0" * 32},
    "suite": "toy",
    "pipeline": "pipe",
    "commit": None,
    "dirty": True,
}
_END = {"event": "end", "status": "FINISHED", "time": 1.7e9 + 1, "outs": {}, "signature": "s"}


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
        f"{key} is {value!r}": projects.events({**_START, "run": "bad", key: value})
        for key, values in wrong.items()
        for value in values
    }
    for key in ("kind", "run", "time", "stage", "pipeline", "suite", "host", "deps"):
        kept = {k: v for k, v in {**_START, "run": "bad"}.items() if k != key}
        made[f"without {key}"] = projects.events(kept)
    text = projects.events({**_START, "run": "bad"})
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
        "an end of unknown status": projects.events({**_END, "status": "DONE"}),
        "an end whose outs are a list": projects.events({**_END, "outs": [1]}),
        "an end without a time": projects.events({"event": "end", "status": "FINISHED"}),
        "garbage": bytes(range(1, 256)) + b"\n",
        "a list": b"[1]\n",
        "100 MB": b'{"event": "' + b"x" * 100_000_000 + b'"}\n',
    }


def _journals() -> Iterator[Case]:
    def ingested(project: projects.Project) -> None:
        """A good journal is in MLflow, and none waits."""
        from tasks.tracking import ingest
        from tasks.tracking.store import Store

        for path in projects.journals():
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
        write("good", projects.events(_START, _END))
        for n, content in enumerate(bad.values()):
            write(f"bad-{n}", content.replace(b'"run": "bad"', f'"run": "bad-{n}"'.encode()))
        ingested(project)
        kept = list(Path(".adamerge/aside").glob("bad-*"))
        expect(len(kept) == len(bad), f"{len(bad)} are to be set aside, {len(kept)} are")
        return len(bad)

    starts = _bad_starts()
    yield _case("journals that begin with no run", partial(beside, starts), seconds=240.0)
    for name in ("without kind", "cut", "not UTF-8", "20 MB"):
        yield _case(f"a journal whose start is: {name}", partial(beside, {name: starts[name]}))

    def within(lines: dict[str, bytes], project: projects.Project) -> int:
        write("good", projects.events(_START) + b"".join(lines.values()) + projects.events(_END))
        ingested(project)
        return len(lines)

    yield _case(
        "lines in a journal that are no events", partial(within, _bad_lines()), seconds=240.0
    )

    def place(name: str, make: Callable[[Path], object], project: projects.Project) -> None:
        write("good", projects.events(_START, _END))
        make(Path(".adamerge/journal", name))
        ingested(project)

    yield _case("a folder among the journals", partial(place, "x.jsonl", Path.mkdir))
    yield _case("a fifo among the journals", partial(place, "x.jsonl", os.mkfifo))
    yield _case(
        "a link to nothing among the journals",
        partial(place, "x.jsonl", lambda p: p.symlink_to("/no")),
    )
    states = [b"", b"{", b"[]", b'{"run_id": 7, "offset": 0}', b'{"run_id": "x", "offset": "y"}']
    states += [b'{"run_id": "of another database", "offset": 1}', b'{"run_id": "x", "offset": 1e9}']
    for state in states:
        yield _case(
            f"the state of a journal is {state!r}",
            partial(place, "good.state", lambda path, state=state: path.write_bytes(state)),
        )

    def refused(project: projects.Project) -> None:
        write("good", projects.events(_START, _END))
        odd = {**_START, "run": "odd", "suite": "x" * 20_000}
        write("odd", projects.events(odd, _END))
        ingested(project)

    yield _case("a journal that MLflow refuses", refused)


def _mlflow() -> Iterator[Case]:
    database = Path("mlflow.db")

    def tables() -> None:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'fromthefuture'")
            connection.commit()

    def pages() -> None:
        content = bytearray(database.read_bytes())
        content[4096 * 3 : -4096] = b"\xa5" * (len(content) - 4096 * 4)
        database.write_bytes(content)

    def folder() -> None:
        database.unlink()
        database.mkdir()

    harms: dict[str, Callable[[], object]] = {
        "garbage": lambda: database.write_bytes(bytes(range(256)) * 50),
        "cut": lambda: database.write_bytes(database.read_bytes()[:10_000]),
        "pages overwritten": pages,
        "of a newer MLflow": tables,
        "empty": lambda: database.write_bytes(b""),
        "a folder": folder,
        "removed": lambda: database.unlink(),
    }

    def told(harm: Callable[[], object], words: tuple[str, ...], project: projects.Project) -> None:
        good = {**_START, "run": "good"}
        Path(".adamerge/journal/good.jsonl").write_bytes(projects.events(good, _END))
        harm()
        code, text = command(*words)
        said(text, ["mlflow.db"] if code else [])
        expect(code in (0, 1), f"code {code}")
        if code:  # the way out is the one that the message gives
            said(text, ["move", "away"])
            expect(list(projects.journals()), "the journals are gone")
            database.rename("away.db")
            done = projects.call(project, *words)  # MLflow keeps a database open for its process
            code, text = done.returncode, done.stdout + done.stderr
        expect(code == 0, text)
        expect(not list(projects.journals()), "the journals wait on")

    for name, harm in harms.items():
        for words in (("status",), ("lineage", GROWN)):
            yield _case(f"mlflow.db: {name}; {words[0]}", partial(told, harm, words))

    def artifacts(make: Callable[[Path], object], project: projects.Project) -> None:
        good = {**_START, "run": "good"}
        outs = {REPORT: projects.hashes()[REPORT]}
        journal = projects.events(good, {**_END, "outs": outs})
        Path(".adamerge/journal/good.jsonl").write_bytes(journal)
        shutil.rmtree("mlartifacts")
        make(Path("mlartifacts"))
        _code, text = command("status")
        said(text, ["mlartifacts"])

    yield _case("mlartifacts is a file", partial(artifacts, lambda p: p.write_text("x")))
    yield _case("mlartifacts leads to nothing", partial(artifacts, lambda p: p.symlink_to("/no")))

    def within(project: projects.Project) -> None:
        """A file stands where MLflow makes the folder of a run."""
        from tasks.tracking.store import Store

        outs = {REPORT: projects.hashes()[REPORT]}
        Path(".adamerge/journal/good.jsonl").write_bytes(projects.events(_START))
        store = Store()
        run_id = store.begin_stage(
            _START, store.begin_pipeline({**_START, "run": "pipe", "name": "p"})
        )
        place = Path("mlartifacts", run_id)
        place.write_text("in the way")
        Path(".adamerge/journal/good.jsonl").write_bytes(
            projects.events(_START, {**_END, "outs": outs})
        )
        _, text = command("status")
        said(text, ["not in MLflow yet", "Nothing is lost"])
        place.unlink()
        _, text = command("status")
        expect(not list(projects.journals()), f"the journal waits on: {text}")

    yield _case("a file in the place of a run's artifacts", within)


# --- Prefect ------------------------------------------------------------------------------------


def _prefect() -> Iterator[Case]:
    from flows import prefect_files

    database = Path(".adamerge/prefect/prefect.db")

    def make() -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES ('a3b9c7d2e5f1')")
            connection.execute("CREATE TABLE flow_run (id TEXT)")
            rows = [(str(n) * 50,) for n in range(2000)]
            connection.executemany("INSERT INTO flow_run VALUES (?)", rows)
            connection.commit()

    def pages() -> None:
        content = bytearray(database.read_bytes())
        content[8192:-4096] = b"\xa5" * (len(content) - 8192 - 4096)
        database.write_bytes(content)

    def folder() -> None:
        database.unlink()
        database.mkdir()

    def mended(harm: Callable[[], object], project: projects.Project) -> None:
        make()
        harm()
        code, text = _mend()
        said(text, ["prefect.db", ".adamerge/aside", "Prefect makes a new one"])
        expect(code == 0 and not database.exists(), "stands where it was")
        expect(_mend() == (0, ""), "a second time as well")

    def _mend() -> tuple[int, str]:
        from flows import cli

        cli.upkeep.check = lambda: None  # type: ignore[attr-defined]
        return command_of(prefect_files.mend)

    harms: dict[str, Callable[[], object]] = {
        "garbage": lambda: database.write_bytes(bytes(range(256)) * 50),
        "cut": lambda: database.write_bytes(database.read_bytes()[:9000]),
        "cut in the header": lambda: database.write_bytes(database.read_bytes()[:60]),
        "pages overwritten": pages,
        "text": lambda: database.write_text("hello"),
        "a folder": folder,
    }
    for name, harm in harms.items():
        yield _case(f"prefect.db: {name}", partial(mended, harm))

    def kept(project: projects.Project) -> None:
        make()
        before = database.read_bytes()
        expect(_mend() == (0, ""), "a whole one is kept")
        expect(database.read_bytes() == before, "changed")

    yield _case("prefect.db: whole", kept)

    def named(sql: str, told: str, project: projects.Project) -> None:
        make()
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(sql)
            code, text = _mend()
        said(text, ["prefect.db", told])
        expect(code == 1 and database.is_file(), "is to be kept")

    future = "UPDATE alembic_version SET version_num = 'fromthefuture'"
    yield _case("prefect.db: of a newer Prefect", partial(named, future, "another version"))
    yield _case("prefect.db: locked", partial(named, "BEGIN EXCLUSIVE", "end that process"))

    def settings(name: str, content: bytes, project: projects.Project) -> None:
        path = database.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        _, text = _mend()
        said(text, [name, ".adamerge/aside"])
        expect(not path.exists(), "stands where it was")

    for name in ("profiles.toml", "memo_store.toml"):
        for content in (b"[[[", b"\xff\xfe", b"a = \x00"):
            yield _case(f"{name}: {content!r}", partial(settings, name, content))


def command_of(call: Callable[[], object]) -> tuple[int, str]:
    """Call what a command calls; return the code that the command would, and what was printed."""
    from tasks.running.failures import OperationError

    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed):
        try:
            call()
        except OperationError as error:
            code = 1
            print(error)
    return code, printed.getvalue()


# --- files where folders belong, and the other way round ----------------------------------------


def _places() -> Iterator[Case]:
    from tasks.running import upkeep

    def replaced(path: Path, make: Callable[[Path], object], project: projects.Project) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path)
        code, text = command("status")
        said(text, [str(path), "moved to"])
        expect(code == 0, text)
        code, text = command("status")
        said(text, [])
        expect(code == 0 and "moved to" not in text, "not mended for good")
        is_undisturbed(project)

    for path in upkeep._FOLDERS:
        if path != upkeep.ASIDE:
            yield _case(f"{path} is a file", partial(replaced, path, lambda p: p.write_text("x")))
    yield _case(
        f"{upkeep.ASIDE} is a file",
        partial(replaced, upkeep.ASIDE, lambda p: p.write_text("x")),
    )
    for path in upkeep._FILES:
        yield _case(f"{path} is a folder", partial(replaced, path, Path.mkdir))
    for path in upkeep._FILES[:3]:
        yield _case(f"{path} is a fifo", partial(replaced, path, os.mkfifo))

    def dangling(path: Path, project: projects.Project) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to("/nowhere/at/all")
        code, text = command("status")
        said(text, [str(path), "/nowhere/at/all", "remove the link"])
        expect(code == 1, f"code {code}")
        expect(path.is_symlink(), "the link is gone")

    for path in (*upkeep._FOLDERS[:1], *upkeep._FOLDERS[7:], *upkeep._FILES[-2:]):
        yield _case(f"{path} leads to nothing", partial(dangling, path), "low")


def _small() -> Iterator[Case]:
    """Small files of the pipeline's own, with what does not belong there."""
    contents = {
        "empty": b"",
        "garbage": bytes(range(256)),
        "a list": b"[1]",
        "an object": b'{"port": "x", "pid": [], "host": 7, "root": 5}',
        "null": b"null",
        "nested without end": b"[" * 100_000,
    }

    def harmed(path: str, content: bytes, project: projects.Project) -> None:
        from flows import estimates, servers
        from tasks.running import processes
        from tasks.running.json_files import read_object

        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if "durations" in path:
            estimates.Estimates({"merge": ()}).seconds("merge")
        elif "server" in path:
            expect(servers._recorded() is None, "found a server")
        elif "flow_runs" in path:
            expect(not processes.is_alive(read_object(place)), "is told to be alive")
        else:
            code, text = command("status")
            said(text, [])
            expect(code == 0, text)

    places = (
        ".adamerge/durations.json",
        ".adamerge/prefect-server.json",
        ".adamerge/flow_runs/7c9e6679-7425-40de-944b-e07fc1f90ae7",
        ".dvc/tmp/rwlock",
        ".dvc/tmp/lock",
        ".dvc/tmp/btime",
        ".adamerge/run.lock",
    )
    for path in places:
        for name, content in contents.items():
            if not path.startswith(".dvc/tmp/") or name in ("empty", "garbage", "an object"):
                yield _case(f"{path}: {name}", partial(harmed, path, content))

    def state(content: bytes, project: projects.Project) -> None:
        command("status")
        for path in Path(".adamerge/dvc").rglob("cache.db"):
            path.write_bytes(content)
        code, text = command("status")
        said(text, [])
        expect(code == 0, text)
        bring_up()
        is_undisturbed(project)

    for name in ("empty", "garbage"):
        yield _case(f"DVC's database of hashes: {name}", partial(state, contents[name]))


def _broken_configs() -> Iterator[Case]:
    def told(
        path: str, content: bytes | None, words: tuple[str, ...], project: projects.Project
    ) -> None:
        Path(path).unlink()
        if content is not None:
            Path(path).write_bytes(content)
        code, text = command(*words)
        said(text, [path.split("/")[-1] if content is not None else ""])
        expect(code in (1, 2), f"code {code}: {text}")

    texts = {"garbage": bytes(range(256)), "a NUL": b"\0", "open": b"[core\n", "none": None}
    for name, content in texts.items():
        yield _case(f".dvc/config: {name}", partial(_config, content), "low")
    for name, content in {
        **texts,
        "a list": b"[1]",
        "stages: 3": b"stages: 3\n",
        "empty": b"",
    }.items():
        for words in (("status",), ("lineage", GROWN)):
            yield _case(
                f"dvc.yaml: {name}; {words[0]}", partial(told, "dvc.yaml", content, words), "low"
            )


def _config(content: bytes | None, project: projects.Project) -> None:
    path = Path(".dvc/config")
    path.unlink()
    if content is None:  # DVC's own defaults do
        shutil.rmtree(".dvc")
    else:
        path.write_bytes(content)
    code, text = command("status")
    said(text, [".dvc"])
    expect(code in (1, 2), f"code {code}: {text}")


# --- what a kill or a full disk leaves ----------------------------------------------------------


def _leftovers() -> Iterator[Case]:
    ours = f".{2**22 + 5}-{'0' * 32}.part"
    theirs = ".AbCdEfGhIjKlMnOpQrStUv.tmp"
    swept = {
        "a copy of DVC's in data/": f"data/suites/toy/grown/{theirs}",
        "a copy of DVC's with - and _": "data/.-_cdEfGhIjKlMnOpQrSt-_.tmp",
        "a copy of DVC's in the cache": f".dvc/cache/files/md5/{theirs}",
        "a copy of DVC's in a folder of the cache": f".dvc/cache/files/md5/00/{theirs}",
        "a part of a dead process": f"data/suites/toy/grown/{ours}.txt",
        "a part of params.yaml": f"{ours}.yaml",
        "a part without a suffix": f"data/{ours}",
        "a part among the journals": f".adamerge/journal/{ours}.state",
    }
    kept = {
        "a user's .tmp": "data/.notes.tmp",
        "one character more": "data/.AbCdEfGhIjKlMnOpQrStUvW.tmp",
        "one character less": "data/.AbCdEfGhIjKlMnOpQrStU.tmp",
        "no dot": "data/AbCdEfGhIjKlMnOpQrStUv.tmp",
        "another suffix": "data/.AbCdEfGhIjKlMnOpQrStUv.tmp.txt",
        "a blank in it": "data/.AbCdEfGhIjKlMnOpQrStU .tmp",
        "a user's .part": "data/.film.part",
        "31 digits": f"data/.{2**22 + 5}-{'0' * 31}.part",
        "a part of a living process": f"data/.{os.getpid()}-{'0' * 32}.part.npy",
        "a copy of DVC's outside": f"docs/{theirs}",
        "in the root": f"{theirs}",
    }

    def left(path: str, gone: bool, project: projects.Project) -> None:
        from flows.dvc import internals

        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("half")
        internals.sweep()
        expect(place.exists() != gone, "is there" if gone else "is gone")
        is_undisturbed(project) if gone else None

    for name, path in swept.items():
        yield _case(f"swept: {name}", partial(left, path, True), "low")
    for name, path in kept.items():
        yield _case(f"kept: {name}", partial(left, path, False), "high")

    def link_kept(project: projects.Project) -> None:
        from flows.dvc import internals

        Path(f"data/{theirs}").symlink_to("params.yaml")
        Path("data/.WbCdEfGhIjKlMnOpQrStUv.tmp").mkdir()
        internals.sweep()
        expect(Path(f"data/{theirs}").is_symlink(), "a link is gone")
        expect(Path("data/.WbCdEfGhIjKlMnOpQrStUv.tmp").is_dir(), "a folder is gone")

    yield _case("kept: a link and a folder of such names", link_kept)

    def busy(project: projects.Project) -> None:
        """While another DVC process is at work its copies are not touched."""
        import fcntl

        from flows.dvc import internals

        place = Path(f"data/{theirs}")
        place.write_text("half")
        with Path(".dvc/tmp/lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            internals.sweep()
        expect(place.exists(), "was removed under another process")

    yield _case("kept: a copy while another DVC process works", busy, "high")

    def full(project: projects.Project) -> None:
        """A limit for the size of files stands for a disk that fails in the middle of a copy."""
        import resource

        Path(GROWN).unlink()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        with contextlib.suppress(Exception):
            bring_up()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        bring_up()
        is_undisturbed(project)

    yield _case("a limit for the size of files", full)

    def killed(project: projects.Project) -> None:
        pid = os.fork()
        if pid == 0:
            with atomic_write("data/x.bin") as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        expect(len(sweep(Path("data"))) == 1, "the part stays")
        expect(not Path("data/x.bin").exists(), "a half file")

    yield _case("a kill in the middle of a write", killed)

    def error(number: int, told: str, project: projects.Project) -> None:
        from tasks.running import failures

        fault = OSError(number, os.strerror(number), "data/x.bin")
        text = failures.explain(fault)
        expect(text and told in text and ("data/x.bin" in text or number == 28), str(text))

    for number, text in (
        (28, "disk is full"),
        (27, "ulimit -f"),
        (24, "ulimit -n"),
        (5, "disk fails"),
        (30, "read-only"),
        (13, "right"),
        (36, "too long"),
    ):
        yield _case(f"errno {number} is explained", partial(error, number, text), "low")


# --- whole runs ---------------------------------------------------------------------------------


def _whole_runs() -> Iterator[Case]:
    def run(harm: Callable[[], object], told: list[str], project: projects.Project) -> None:
        harm()
        done = projects.call(project, "run", timeout=200)
        said(done.stdout + done.stderr, [*told, "8 stages in"])
        expect(done.returncode == 0, done.stderr)
        is_undisturbed(project)

    def everything() -> None:
        _flip(projects.object_of(GROWN))
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
    yield _case("a run after all of it", partial(run, everything, told), seconds=240.0)
    yield _case(
        "a run after nothing", partial(run, lambda: None, ["0 ran, 8 cached"]), seconds=240.0
    )

    def no_records(project: projects.Project) -> None:
        Path("mlflow.db").write_bytes(bytes(range(256)) * 50)
        Path(GROWN).unlink()
        done = projects.call(project, "run", timeout=200)
        said(done.stdout + done.stderr, ["8 stages in", "mlflow.db is damaged", "Nothing is lost"])
        is_undisturbed(project)
        expect(list(projects.journals()), "the journal of the run is gone")

    yield _case("a run while mlflow.db is damaged", no_records, seconds=240.0)
