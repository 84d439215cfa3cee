"""MLflow's database: where it is, whether it can be used, and what to do if not."""

import sqlite3
from contextlib import suppress
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


def explain(error: Exception) -> str:
    """Say what a user can do about an error of the database."""
    text = str(error)
    if "locked" in text:
        return f"{DATABASE} is locked: another process holds it; end that process"
    if "not a database" in text or "malformed" in text:
        return f"{DATABASE} is damaged ({text}): move it away, a new one is made"
    if "unable to open" in text or "readonly" in text:
        return f"{DATABASE} cannot be written ({text}): make the file and its folder writable"
    if "full" in text:
        return f"the disk is full, {DATABASE} cannot grow: free some space"
    return f"{DATABASE} cannot be used: {text}"
