"""What must hold of the files around a project's results before a command uses them.

A disk, another program or a hand may have left a file where a folder belongs, a folder where a file
belongs, or what this user cannot write: every command would fail there, for ever. What the pipeline
makes by itself is set aside and made anew; the rest is named, with the way out.
"""

import os
import re
import shlex
import stat
from pathlib import Path

from adamerge_core.atomic import sweep
from adamerge_core.errors import InputError
from tasks.graph.dvc_lock import DVC_LOCK
from tasks.running.aside import ASIDE, set_aside
from tasks.running.environment import DVC_STATE, RUN_LOCK, WORK
from tasks.running.failures import OperationError
from tasks.running.hashes import CACHE

DATA = Path("data")
_DVC = Path(".dvc")

# in an order in which a folder comes after the one that it lies in
_FOLDERS = (
    WORK,
    ASIDE,
    WORK / "journal",
    WORK / "scratch",
    WORK / "flow_runs",
    WORK / "prefect",
    DVC_STATE,
    _DVC / "tmp",
    _DVC / "cache",
    _DVC / "cache/files",
    _DVC / "cache/files/md5",
    _DVC / "cache/runs",
    Path("mlartifacts"),
)
_FILES = (
    RUN_LOCK,
    WORK / "journal/.lock",
    WORK / "durations.json",
    WORK / "error.log",
    WORK / "prefect-server.json",
    WORK / "prefect-server.log",
    WORK / "mlflow-server.json",
    WORK / "mlflow-server.log",
    _DVC / "tmp/lock",
    _DVC / "tmp/rwlock",
    _DVC / "tmp/rwlock.lock",
    _DVC / "tmp/btime",
    DVC_LOCK,
    Path("mlflow.db"),
)
_NEW = "a new one is made"

_MOST_ROOT = 400  # SQLite opens no path of more than 512 bytes; DVC's database lies 82 below

# the copies that DVC makes, renamed to their places when they are whole: 16 random bytes in base64
_DVC_COPY = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")


class UpkeepError(OperationError):
    """Files around the project cannot be used; the message lists all, each with its fix."""


def check() -> None:
    """Set aside what is no folder, or no file, as it must be.

    Raises UpkeepError for what cannot be written, InputError for the project's own path.
    """
    _check_root()
    # not Path's own: below a folder without any right these say False, and the folder is named
    faults = [
        f"{path} is a link to {path.readlink()}, which is not there: mount or make that, "
        "or remove the link"
        for path in (*_FOLDERS, *_FILES)
        if os.path.islink(path) and not os.path.exists(path)
    ]
    _raise(faults)
    for path in _FOLDERS:
        if os.path.exists(path) and not os.path.isdir(path):
            _move(path, "is no folder")
    for path in _FILES:
        if os.path.exists(path) and not os.path.isfile(path):
            _move(path, "is no file")
    there = [path for path in (Path(), *_FOLDERS, *_FILES) if os.path.exists(path)]
    _raise([_unwritable(path) for path in there if not _is_writable(path)])


def _check_root() -> None:
    root = str(Path.cwd())
    if "?" in root or "%" in root:
        raise InputError(
            f"{root}: the path of a project must not hold ? or %, which mean something else in the "
            "addresses of MLflow's and Prefect's databases; rename the folder"
        )
    size = len(os.fsencode(root))
    if size > _MOST_ROOT:
        raise InputError(
            f"{root}: the path of a project has {size} bytes; it must have at most {_MOST_ROOT}, "
            "as databases cannot be opened far below: move the project to a shorter one"
        )


def _move(path: Path, why: str) -> None:
    try:
        set_aside(path, why, _NEW)
    except OSError as error:
        raise UpkeepError(f"{path} {why}, and cannot be moved ({error}): move it away") from error


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK | os.R_OK | (os.X_OK if path.is_dir() else 0))


def _unwritable(path: Path) -> str:
    status, shown = path.stat(), path if path.name else path.absolute()
    mode = stat.filemode(status.st_mode)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{shown} is on a file system that is mounted read-only: copy the project elsewhere"
    if status.st_uid == os.geteuid():
        fix = f"chmod -R u+rwX {shlex.quote(str(shown))}"
    else:
        fix = f"sudo chown -R {os.geteuid()} {shlex.quote(str(shown))}, or work as that user"
    return f"{shown} ({mode}, of user {status.st_uid}) cannot be written by {os.geteuid()}: {fix}"


def _raise(faults: list[str]) -> None:
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        raise UpkeepError(f"{Path.cwd()} cannot be worked in{lines}")


def sweep_copies() -> list[Path]:
    """Remove the cut copies that ended processes left in data/ and in DVC's cache; list them.

    Those of DVC are known by their whole name. Call it while no DVC process copies files here,
    that is under DVC's lock; those of this project name the process that wrote them.
    """
    data = [Path(folder) for folder, _, _ in os.walk(DATA)]
    cache = [CACHE.parent.parent, CACHE, *(path for path in CACHE.glob("*") if path.is_dir())]
    copies = [path for folder in (*data, *cache) for path in _cut_copies(folder)]
    for path in copies:
        path.unlink(missing_ok=True)
    ours = [path for folder in (*data, Path(), WORK, WORK / "journal") for path in sweep(folder)]
    return copies + ours


def _cut_copies(folder: Path) -> list[Path]:
    try:
        found = [entry for entry in os.scandir(folder) if _DVC_COPY.fullmatch(entry.name)]
    except OSError:
        return []
    return [Path(entry.path) for entry in found if entry.is_file(follow_symlinks=False)]
