"""Where a file of the pipeline comes from: the stage and run that made it, and all upstream of it.

Lineage goes by content: a file is hashed, and the run that wrote a file of this path and md5 made
it, whatever dvc.lock says now. What no run recorded is told from dvc.lock, as far as the md5s
agree.
"""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph import dvc_lock, dvc_yaml
from tasks.graph.dvc_lock import Locked
from tasks.graph.dvc_yaml import Stage, is_code
from tasks.running.commit import content_at, revision_of
from tasks.running.hashes import md5
from tasks.tracking.database import DATABASE
from tasks.tracking.found_run import FoundRun
from tasks.tracking.registry.versions import MD5, PATH
from tasks.tracking.store import Store

RESULTS = "results.csv"


@dataclass(frozen=True)
class Origin:
    """One run of a stage, and what it read and wrote: md5s by path."""

    stage: str
    cmd: str
    run_id: str | None
    page: str | None
    commit: str | None
    dirty: bool | None
    params: Mapping[str, Any]
    status: str | None
    start_ms: int | None
    seconds: float | None
    reads: Mapping[str, str]
    code: Mapping[str, str]
    writes: Mapping[str, str]


@dataclass(frozen=True)
class Lineage:
    """A file's origin first, then all upstream of it, each after what reads from it."""

    path: str
    md5: str
    about: str
    """What was asked for, where that is no file: a registered model, a commit."""
    locked_md5: str | None
    origins: tuple[Origin, ...]
    recorded: bool
    """Whether there is a database of runs at all."""


def trace(what: str) -> Lineage:
    """Trace what a stage of dvc.yaml wrote back to its sources.

    what: a file; a registered model (`mini-merged`, its champion; `mini-merged/3`;
    `mini-merged@candidate`); or a commit, for the results that it has or made. Raises InputError
    for anything else, and for a file that is not there.
    """
    stages = dvc_yaml.read()
    writer = {out: stage for stage in stages.values() for out in stage.files}
    name = _in_project(what)
    store = Store() if DATABASE.is_file() else None
    if name in writer:
        return _of_file(what, name, writer, store)
    found = _of_model(what, store) or _of_commit(what, store)
    if found is None:
        raise InputError(_unknown(what, list(writer)))
    path, content, about = found
    return _traced(path, content, about, writer, store)


def _of_file(what: str, name: str, writer: Mapping[str, Stage], store: Store | None) -> Lineage:
    if not Path(name).is_file():
        raise InputError(
            f"{what} is not there: bring it back with `dvc checkout {name}`, "
            "or make it with `adamerge run`"
        )
    return _traced(name, md5(Path(name)), "", writer, store)


def _traced(
    path: str, content: str, about: str, writer: Mapping[str, Stage], store: Store | None
) -> Lineage:
    locked = dvc_lock.read_lock()
    search = _Search(writer, locked, store)
    search.visit(path, content)
    entry = locked.get(writer[path].name) if path in writer else None
    in_lock = entry.outs.get(path) if entry else None
    origins = tuple(search.found.values())
    return Lineage(path, content, about, in_lock, origins, store is not None)


def _of_model(what: str, store: Store | None) -> tuple[str, str, str] | None:
    """Find the weights of a registered model: their path, their md5, and which version it is."""
    version = store.registered(what.removeprefix("models:/")) if store else None
    if version is None:
        return None
    about = f"{version.name}, version {version.version}"
    if not {PATH, MD5} <= version.tags.keys():
        raise InputError(f"{about}: this pipeline did not register it, and knows no file of it")
    return version.tags[PATH], version.tags[MD5], about


def _of_commit(what: str, store: Store | None) -> tuple[str, str, str] | None:
    """Find the results that a commit has in its dvc.lock, else those made from it last."""
    revision = revision_of(what)
    if revision is None:
        return None
    text = content_at(revision, dvc_lock.DVC_LOCK.as_posix())
    outs = [entry.outs for entry in dvc_lock.parse_lock(text).values()] if text else []
    files = [(path, digest) for out in outs for path, digest in out.items()]
    about = f"commit {revision[:12]}"
    for path, digest in files:
        if _is_results(path):
            return path, digest, f"{about}, its dvc.lock"
    run = store.made_results(revision) if store else None
    if run is None:
        raise InputError(
            f"commit {what}: its dvc.lock has no results, and no run that made results from it is "
            "recorded; ask for a file, a registered model or another commit"
        )
    path = next(path for path in run.outs() if _is_results(path))
    return path, run.outs()[path], f"{about}, the last run from it"


def _is_results(path: str) -> bool:
    return Path(path).name == RESULTS and "report" in Path(path).parts


class _Search:
    """Goes upstream from a file, each run once."""

    def __init__(
        self, writer: Mapping[str, Stage], locked: Mapping[str, Locked], store: Store | None
    ) -> None:
        self._writer, self._locked, self._store = writer, locked, store
        self.found: dict[tuple[str, str], Origin] = {}

    def visit(self, path: str, content: str) -> None:
        """Add the run that wrote `content` (an md5) to `path`, and all upstream of it."""
        waiting = [(path, content)]
        while waiting:
            path, content = waiting.pop(0)
            if self._is_known(path, content):
                continue
            origin = self._origin(path, content)
            if origin is None:  # no stage's: a user's own
                continue
            self.found[origin.stage, content] = origin
            waiting += origin.reads.items()

    def _is_known(self, path: str, content: str) -> bool:
        return any(origin.writes.get(path) == content for origin in self.found.values())

    def _origin(self, path: str, content: str) -> Origin | None:
        run = self._store.find({path: content}) if self._store else None
        if run:
            return _recorded(run)
        stage = self._writer.get(path)
        if stage is None:
            return None
        entry = self._locked.get(stage.name)
        if entry and entry.outs.get(path) == content:
            return _unrecorded(stage, entry)
        return _unrecorded(stage, Locked({}, {}, {path: content}))


def _recorded(run: FoundRun) -> Origin:
    reads, code = _split(run.deps())
    return Origin(
        stage=run.stage,
        cmd=run.fact("cmd") or "",
        run_id=run.run_id,
        page=run.page,
        commit=run.fact("git.commit"),
        dirty=run.fact("git.dirty") == "true",
        params=run.params,
        status=run.status,
        start_ms=run.start_ms,
        seconds=run.seconds,
        reads=reads,
        code=code,
        writes=run.outs(),
    )


def _unrecorded(stage: Stage, entry: Locked) -> Origin:
    """Tell of a stage run that MLflow does not have what dvc.lock says."""
    reads, code = _split(entry.deps)
    return Origin(
        stage=stage.name,
        cmd=stage.cmd,
        run_id=None,
        page=None,
        commit=None,
        dirty=None,
        params=entry.params,
        status=None,
        start_ms=None,
        seconds=None,
        reads=reads,
        code=code,
        writes=entry.outs,
    )


def _split(deps: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Data and code."""
    code = {path: content for path, content in deps.items() if is_code(path)}
    return {path: content for path, content in deps.items() if path not in code}, code


def _in_project(path: str) -> str:
    """Relative to the project's root, as dvc.yaml has it."""
    try:
        return Path(path).resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return path


def _unknown(path: str, known: list[str]) -> str:
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.6)
    folders = Counter(Path(other).parent.as_posix() for other in known)
    lines = [f"{path} is not written by any stage of {dvc_yaml.DVC_YAML}"]
    if close:
        lines.append(f"do you mean {' or '.join(close)}?")
    lines.append("what can be asked are the files in")
    lines += [f"  {folder} ({count})" for folder, count in folders.items()]
    return "\n".join(lines)
