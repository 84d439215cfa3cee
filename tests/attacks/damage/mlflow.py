"""MLflow's database and its artifacts."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import case
from tests.attacks.damage.journals import END, START
from tests.attacks.projects import (
    GROWN,
    REPORT,
    command,
    expect,
)


def cases() -> Iterator[Case]:
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
        good = {**START, "run": "good"}
        Path(".adamerge/journal/good.jsonl").write_bytes(projects.events(good, END))
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
        yield case(f"mlflow.db: {name}; status", partial(told, harm, ("status",)))
    lineage = partial(told, harms["garbage"], ("lineage", GROWN))
    yield case("mlflow.db: garbage; lineage", lineage)

    def artifacts(make: Callable[[Path], object], project: projects.Project) -> None:
        good = {**START, "run": "good"}
        outs = {REPORT: projects.hashes()[REPORT]}
        journal = projects.events(good, {**END, "outs": outs})
        Path(".adamerge/journal/good.jsonl").write_bytes(journal)
        shutil.rmtree("mlartifacts")
        make(Path("mlartifacts"))
        _code, text = command("status")
        said(text, ["mlartifacts"])

    yield case("mlartifacts is a file", partial(artifacts, lambda p: p.write_text("x")))
    yield case("mlartifacts leads to nothing", partial(artifacts, lambda p: p.symlink_to("/no")))

    def within(project: projects.Project) -> None:
        """A file stands where MLflow makes the folder of a run."""
        from tasks.tracking.store import Store

        outs = {REPORT: projects.hashes()[REPORT]}
        Path(".adamerge/journal/good.jsonl").write_bytes(projects.events(START))
        store = Store()
        run_id = store.begin_stage(
            START, store.begin_pipeline({**START, "run": "pipe", "name": "p"})
        )
        place = Path("mlartifacts", run_id)
        place.write_text("in the way")
        Path(".adamerge/journal/good.jsonl").write_bytes(
            projects.events(START, {**END, "outs": outs})
        )
        _, text = command("status")
        said(text, ["not in MLflow yet", "Nothing is lost"])
        place.unlink()
        _, text = command("status")
        expect(not list(projects.journals()), f"the journal waits on: {text}")

    yield case("a file in the place of a run's artifacts", within)
