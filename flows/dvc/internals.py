"""What of DVC's private parts is used, and why; nothing else of this project imports dvc.

DVC documents its commands and dvc.api. Neither gives the graph and all changes in one call, runs
many stages in one process, forks stages, or writes dvc.lock so that a kill cannot tear it. What is
used here was checked against DVC 3.67, to which pyproject.toml holds it;
tests/flows/test_dvc_internals.py checks the names and signatures.
"""

import fcntl
import shlex
import signal
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dvc.dvcfile
import dvc.stage.run
import dvc.utils.strictyaml
import psutil
from dvc.cli import main as dvc_main
from dvc.config import ConfigError
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.experiments.utils import get_exp_rwlock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.scm import NoSCM, SCMError
from dvc.stage import PipelineStage
from dvc.stage.exceptions import StageCmdFailedError
from dvc.utils.serialize import LOADERS, modify_yaml, parse_yaml
from dvc.utils.serialize import load_yaml as load_yaml_of_dvc
from voluptuous import Invalid

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from flows.dvc.fork_server import ForkServer
from flows.dvc.lock_text import LockText
from tasks.graph.dvc_lock import DVC_LOCK
from tasks.graph.dvc_yaml import DVC_YAML
from tasks.running import upkeep
from tasks.running.aside import set_aside
from tasks.running.environment import DVC_STATE, RUN_LOCK
from tasks.running.json_files import read_object
from tasks.suite.yaml_files import load_yaml

# the file whose lock every DVC command holds while it reads or writes the project
_REPO_LOCK = Path(".dvc/tmp/lock")

# which process reads or writes which files; the second one for experiments
_RWLOCKS = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))

# what DVC's experiments call the project's own folder, among the files that they lock
_WORKSPACE = "workspace"

# what `dvc repro` prints around a stage's own lines
RAN, UNCHANGED, RESTORED = "Running stage '", "didn't change, skipping", "is cached - skipping"
NOISE = (
    "> ",
    "Updating lock file",
    "Generating lock file",
    "Use `dvc push`",
    "Data and pipelines are up to date",
    "Waiting for lock",
    "To track the changes with git, run:",
    "To enable auto staging, run:",
    "\tgit add ",
    "\tdvc config core.autostage true",
)


# --- the graph ----------------------------------------------------------------------------------


def read_graph() -> tuple[dict[str, tuple[str, ...]], dict[str, list[Any]]]:
    """Read each stage's direct upstream stages, in the order of dvc.yaml, and what has changed.

    Of a stage that is not up to date the second mapping has DVC's findings, as `dvc status --json`
    prints them. `dvc status` and `dvc dag` would be two processes, and print no stages that are up
    to date. Raises InputError: dvc.yaml has a fault, or another DVC process is at work here.
    """
    # under DVC's lock, which status() takes too: it reads dvc.yaml and dvc.lock anew for each taker
    with _explained(), _repo() as repo, lock_repo(repo), _params_parsed_once():
        _set_aside_links_to_nothing(repo)
        graph = repo.index.graph
        upstream = {
            stage.addressing: tuple(sorted(other.addressing for other in graph.successors(stage)))
            for stage in repo.index.stages
            if isinstance(stage, PipelineStage)
        }
        return upstream, dict(repo.status())


def cache_objects(outputs: Collection[str]) -> dict[str, Path]:
    """Name where DVC's cache has, or had, the content that dvc.lock names of each output.

    Raises InputError as read_graph does.
    """
    with _explained(), _repo() as repo, lock_repo(repo):
        return {
            out.def_path: Path(out.cache.oid_to_path(out.hash_info.value))
            for out in repo.index.outs
            if out.def_path in outputs and out.hash_info and out.hash_info.value
        }


def _set_aside_links_to_nothing(repo: Repo) -> None:
    """Set aside outputs that are links to what is not there: DVC looks behind them, and ends."""
    for out in repo.index.outs:
        path = Path(out.def_path)
        if path.is_symlink() and not path.exists():
            set_aside(path, f"leads to {path.readlink()}, which is not there", "it is made anew")


@contextmanager
def _repo() -> Iterator[Repo]:
    """Open DVC's project here; what it knows of hashes is kept where no other user can write."""
    DVC_STATE.mkdir(parents=True, exist_ok=True)
    DVC_STATE.chmod(0o700)
    try:
        repo = Repo()
    except sqlite3.OperationalError:  # a full disk, a lock: the database itself is whole
        raise
    except sqlite3.DatabaseError:
        set_aside(DVC_STATE, "holds a damaged database", "DVC hashes all files anew")
        DVC_STATE.mkdir(mode=0o700)
        repo = Repo()
    with repo:
        yield repo


@contextmanager
def _params_parsed_once() -> Iterator[None]:
    """Have DVC parse params.yaml once while it is entered; else it does so for every stage."""
    parsed: dict[str, Any] = {}

    def load(path: str, *arguments: Any, **options: Any) -> Any:
        if path not in parsed:
            parsed[path] = load_yaml_of_dvc(path, *arguments, **options)
        return parsed[path]

    LOADERS[".yaml"] = load
    try:
        yield
    finally:
        del LOADERS[".yaml"]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except LockError as error:
        raise InputError(
            f"another DVC process is at work in {Path.cwd()}: let it end, then run this again"
        ) from error
    except NotDvcRepoError as error:
        raise InputError(
            f"{Path.cwd()} has no .dvc/: bring it back (git checkout .dvc), or make it (dvc init)"
        ) from error
    except ConfigError as error:
        raise InputError(
            f".dvc/config: {error}; mend it, or bring it back (git checkout .dvc/config)"
        ) from error
    except SCMError as error:
        raise InputError(
            f"{Path.cwd()} is not in a git repository, and DVC looks at git: make one (git init), "
            "or have DVC do without (dvc config --local core.no_scm true)"
        ) from error
    except DvcException as error:
        raise InputError(f"{DVC_YAML}: {error}") from error


# --- experiments --------------------------------------------------------------------------------


@contextmanager
def no_experiments() -> Iterator[None]:
    """Keep `dvc exp run` and `dvc exp apply` out of the project's folder while it is entered.

    An experiment puts the project's files into a git stash and takes them out again: params.yaml
    and dvc.lock would change under the stages. DVC's own lock of its experiments says to whoever
    starts one which process holds the folder. Raises InputError where an experiment is at work.
    """
    with _repo_lock() as free:
        if free:
            _drop_dead_rwlocks()
    sweep()
    with _explained(), _repo() as repo:
        if isinstance(repo.scm, NoSCM):  # by core.no_scm: then DVC has no experiments
            yield
            return
        running = repo.experiments.workspace_queue._active_pid
        if running is not None:
            raise InputError(
                f"`dvc exp run` is at work in this project (process {running}): "
                "let it end, then run this again"
            )
        with get_exp_rwlock(repo, writes=[_WORKSPACE]):
            yield


# --- dvc.lock -----------------------------------------------------------------------------------


_LOCK = LockText(parse_yaml)


@contextmanager
def modify_lock(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
    """Yield the content of dvc.lock and write what became of it, as DVC's own modify_yaml does.

    DVC's keeps comments and writes in place. dvc.lock has no comments: here only what changed is
    parsed and written (see LockText), and the file is replaced as a whole, so that a kill cannot
    tear it.
    """
    lock = Path(path)
    if lock.name != DVC_LOCK.name:
        with modify_yaml(path, fs=fs) as data:
            yield data
        return
    data = _LOCK.parse(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    yield data
    text = _LOCK.dump(data)
    with atomic_write(lock) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lock_whole() -> None:
    """Have DVC read and write dvc.lock with LockText in this process; DVC has no setting for that.

    DVC only reads the entries that it is given.
    """
    dvc.dvcfile.modify_yaml = modify_lock
    dvc.utils.strictyaml.parse_yaml = _parse_lock


def _parse_lock(text: str, path: str, typ: str = "safe") -> Any:
    if Path(path).name == DVC_LOCK.name and typ == "safe":
        return _LOCK.parse(text)
    return parse_yaml(text, path, typ=typ)


# --- stages -------------------------------------------------------------------------------------


_servers: list[ForkServer] = []
_run_in_shell = dvc.stage.run._run


def fork_stages() -> None:
    """Have DVC run the stages that are `python -m ...` as forks; it has no setting for that."""
    dvc.stage.run._run = _run_forked


def _run_forked(executable: str | None, cmd: str, **options: Any) -> None:
    words = shlex.split(cmd)
    if words[:2] != ["python", "-m"] or shlex.join(words) != cmd:  # work for a shell
        _run_in_shell(executable, cmd, **options)
        return
    server = _server()
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the stage, which ends by it
    try:
        code = server.run(words[2], words[3:], options["env"], options["cwd"])
    finally:
        signal.signal(signal.SIGINT, interrupt)
    if code != 0:
        raise StageCmdFailedError(cmd, code)


def _server() -> ForkServer:
    if _servers and not _servers[-1].alive:
        _servers.pop().close()
    if not _servers:
        _servers.append(ForkServer())
    return _servers[-1]


def main(arguments: Sequence[str]) -> int:
    """Run a DVC command in this process; return its exit code.

    The documented way is a process a command, which imports DVC anew for half a second.
    """
    return int(dvc_main(list(arguments)))


# --- what a kill leaves -------------------------------------------------------------------------


def sweep() -> None:
    """Remove cut copies of DVC's and of this project's that a kill or a full disk left."""
    with _repo_lock() as free:
        removed = upkeep.sweep_copies() if free else []
    if removed:
        print(f"removed {len(removed)} cut copies that ended processes left, as {removed[0]}")


def mend() -> None:
    """Repair what a killed DVC process may have left: a torn dvc.lock, locks of no one.

    DVC writes dvc.lock in place. Without it nothing is lost: DVC's run cache knows every
    finished stage.
    """
    with _repo_lock() as free:
        if not free:  # another DVC process is writing just now
            return
        if DVC_LOCK.exists() and not _is_whole(DVC_LOCK):
            set_aside(DVC_LOCK, "is torn or damaged", "finished stages come from the cache")
        _drop_dead_rwlocks()


def _drop_dead_rwlocks() -> None:
    for rwlock in _RWLOCKS:
        if rwlock.exists() and not _is_held(rwlock):
            rwlock.unlink(missing_ok=True)


@contextmanager
def _repo_lock() -> Iterator[bool]:
    """Hold DVC's own lock of the project, if it is free; yield whether it was."""
    if not _REPO_LOCK.exists():
        yield True
        return
    with _REPO_LOCK.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _is_whole(lock: Path) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(lock))
    except (InputError, Invalid):
        return False
    return True


def _is_held(rwlock: Path) -> bool:
    """Tell whether a process named in DVC's read and write locks is one of DVC's that lives.

    DVC itself asks only whether there is a process of that id: after a restart of the machine it
    may be any.
    """
    held = read_object(rwlock)
    try:
        holders = [
            info["pid"]
            for mode in ("read", "write")
            for infos in held.get(mode, {}).values()
            for info in (infos if isinstance(infos, list) else [infos])
            if info
        ]
    except (ValueError, AttributeError, TypeError, KeyError):  # torn as well
        return False
    return any(_is_dvc(pid) or _is_flow(pid) for pid in holders)


def _is_dvc(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return any("dvc" in argument for argument in psutil.Process(pid).cmdline())
    return False


def _is_flow(pid: int) -> bool:
    """Tell whether the process is this project's flow at work, which holds a lock of DVC's."""
    if not RUN_LOCK.exists():
        return False
    with RUN_LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read() == str(pid)
    return False
