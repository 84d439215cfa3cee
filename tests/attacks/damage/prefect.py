"""Prefect's database and settings."""

import contextlib
import io
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import case
from tests.attacks.projects import (
    expect,
)


def cases() -> Iterator[Case]:
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
        yield case(f"prefect.db: {name}", partial(mended, harm))

    def kept(project: projects.Project) -> None:
        make()
        before = database.read_bytes()
        expect(_mend() == (0, ""), "a whole one is kept")
        expect(database.read_bytes() == before, "changed")

    yield case("prefect.db: whole", kept)

    def named(sql: str, told: str, project: projects.Project) -> None:
        make()
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(sql)
            code, text = _mend()
        said(text, ["prefect.db", told])
        expect(code == 1 and database.is_file(), "is to be kept")

    future = "UPDATE alembic_version SET version_num = 'fromthefuture'"
    yield case("prefect.db: of a newer Prefect", partial(named, future, "another version"))
    yield case("prefect.db: locked", partial(named, "BEGIN EXCLUSIVE", "end that process"))

    def settings(name: str, content: bytes, project: projects.Project) -> None:
        path = database.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        _, text = _mend()
        said(text, [name, ".adamerge/aside"])
        expect(not path.exists(), "stands where it was")

    for name in ("profiles.toml", "memo_store.toml"):
        for content in (b"[[[", b"\xff\xfe", b"a = \x00"):
            yield case(f"{name}: {content!r}", partial(settings, name, content))


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
