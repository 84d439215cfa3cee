"""MLflow's database: where it is, whether it can be used, and what to do if not."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from tasks.running.failures import OperationError

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlartifacts")
"""What MLflow keeps beside it: files of the runs."""


def keep_private() -> None:
    """Narrow the database and the artifacts to their owner: their server asks for a password."""
    for path in (DATABASE, ARTIFACTS):
        with suppress(OSError):  # not there, or another user's
            if path.stat().st_mode & 0o077:
                path.chmod(path.stat().st_mode & 0o700)


class TrackingError(OperationError):
    """MLflow's database cannot be used now; the message says why and what to do."""


class RefusedError(Exception):
    """MLflow can be used, but does not take this."""


def probe(database: Path) -> None:
    """Fail at once, with a message for a user, where MLflow would wait for minutes."""
    try:
        connection = sqlite3.connect(database, timeout=3.0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TrackingError(explain(error)) from error


def relocate(database: Path = DATABASE) -> None:
    """Have the paths in the database lead to this project, where it was copied or moved here.

    MLflow keeps them whole, from the root of the file system: it would go on to read and write in
    the folder that the project came from. All change in one transaction. Raises TrackingError.
    """
    here = ARTIFACTS.resolve().as_uri()
    try:
        with closing(sqlite3.connect(database, timeout=3.0, isolation_level=None)) as connection:
            if not connection.execute(_HAS_EXPERIMENTS).fetchone():
                return
            moved = [old for (old,) in connection.execute(_ROOTS, (f"%/{ARTIFACTS}", here))]
            default = connection.execute(_DEFAULT, (f"{here}/0",)).fetchone()
            if moved or default:
                connection.execute("BEGIN IMMEDIATE")
                for old in moved:
                    _move(connection, old, here)
                connection.execute(_MOVE_DEFAULT, (f"{here}/0",))
                connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise TrackingError(explain(error)) from error


_HAS_EXPERIMENTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'experiments'"

_ROOTS = """
SELECT DISTINCT artifact_location FROM experiments
WHERE artifact_location LIKE ? AND artifact_location LIKE 'file:%' AND artifact_location != ?
"""

# the experiment that MLflow itself makes, for runs of no other, with a place in the current folder
_DEFAULT = "SELECT 1 FROM experiments WHERE experiment_id = 0 AND artifact_location != ?"
_MOVE_DEFAULT = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"

_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def _move(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the folder `old` by `new` in all locations that are it, or lie in it."""
    for table, column in _LOCATIONS:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
        )


def explain(error: Exception) -> str:
    """Say what a user can do about an error of the database."""
    text = str(error)
    if "locked" in text:
        return f"{DATABASE} is locked: another process holds it; end that process"
    if "not a database" in text or "malformed" in text:
        return f"{DATABASE} is damaged ({text}): move it away, a new one is made"
    if DATABASE.is_dir():
        return f"{DATABASE} is a folder: move it away, a new database is made"
    if "database schema" in text or "Can't locate revision" in text:
        said = text.strip().split(". ")[0]
        return (
            f"{DATABASE} is of another version of MLflow ({said}): use that version, or bring "
            f"it to this one (mlflow db upgrade sqlite:///{DATABASE}), or move it away, and a "
            "new one is made"
        )
    if "unable to open" in text or "readonly" in text:
        return f"{DATABASE} cannot be written ({text}): make the file and its folder writable"
    if "full" in text:
        return f"the disk is full, {DATABASE} cannot grow: free some space"
    return f"{DATABASE} cannot be used: {text}"
