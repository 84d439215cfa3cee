"""Prefect's own files of a project: a damaged one is set aside before Prefect meets it.

Prefect's pages lose the earlier flow runs with its database; MLflow has the runs.
"""

import importlib.util
import os
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

from tasks.running.aside import set_aside
from tasks.running.environment import work_folder
from tasks.running.failures import OperationError

_REVISIONS = "server/database/_migrations/versions/sqlite"
_NEW = "Prefect makes a new one"


class PrefectFilesError(OperationError):
    """Prefect's database cannot be used now; the message says why and what to do."""


def mend() -> None:
    """Set aside what Prefect could not start with, and make its folder.

    Raises PrefectFilesError: in use, or newer.
    """
    home = Path(os.environ["PREFECT_HOME"])
    if home.is_relative_to(Path.cwd()):
        work_folder()
    home.mkdir(parents=True, exist_ok=True)
    shown = Path(os.path.relpath(home)) if home.is_relative_to(Path.cwd()) else home
    for name in ("profiles.toml", "memo_store.toml"):
        _mend_settings(shown / name)
    _mend_database(shown / "prefect.db")


def _mend_settings(path: Path) -> None:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError):  # no text, no TOML, a folder
        set_aside(path, "is damaged", _NEW)


def _mend_database(database: Path) -> None:
    if not database.exists():
        return
    fault = "is no file" if not database.is_file() else _fault(database)
    if fault:
        beside = [database.with_name(f"{database.name}-{end}") for end in ("wal", "shm")]
        for path in (database, *beside):
            if path.exists():
                set_aside(path, fault, _NEW)


def _fault(database: Path) -> str | None:
    """Say what is wrong with the database, if it is beyond use."""
    try:
        with closing(sqlite3.connect(database, timeout=3.0, isolation_level=None)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                return f"is damaged ({' '.join(found.split())[:80]})"
            _check_revision(connection, database)
    except sqlite3.OperationalError as error:  # it may be whole
        if "locked" in str(error):
            reason = "is locked: another process holds it; end that process"
        else:
            reason = f"cannot be used ({error}): make it and its folder writable, or move it away"
        raise PrefectFilesError(f"{database} {reason}") from error
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    return None


def _check_revision(connection: sqlite3.Connection, database: Path) -> None:
    """Raise PrefectFilesError if the tables are of a Prefect that this one does not know."""
    named = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    if not connection.execute(named).fetchone():
        return
    spec = importlib.util.find_spec("prefect")
    folder = Path((spec.origin if spec else None) or "").parent / _REVISIONS
    known = list(folder.glob("*.py"))
    for (revision,) in connection.execute("SELECT version_num FROM alembic_version"):
        if any(f"_{revision}_" in path.name for path in known):  # most are named by it
            continue
        if known and not any(f'"{revision}"' in path.read_text() for path in known):
            raise PrefectFilesError(
                f"{database} is of another version of Prefect (its revision {revision} is unknown "
                "to this one): use that version, or move the file away, and a new one is made"
            )
