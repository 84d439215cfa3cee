"""Where a file of the pipeline comes from: the stage and run that made it, and all upstream of it.

Lineage goes by content: a file is hashed, and the run that wrote a file of this path and md5 made
it, whatever dvc.lock says now. What no run recorded is told from dvc.lock, as far as the md5s
agree.
"""

import difflib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph import dvc_lock, dvc_yaml
from tasks.graph.dvc_lock import Locked
from tasks.graph.dvc_yaml import Stage, is_code
from tasks.running.hashes import md5
from tasks.tracking.database import DATABASE
from tasks.tracking.found_run import FoundRun
from tasks.tracking.store import Store

_PARAMS_IN_A_LINE = 12


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
    reads: Mapping[str, str]
    code: Mapping[str, str]
    writes: Mapping[str, str]


@dataclass(frozen=True)
class Lineage:
    """A file's origin first, then all upstream of it, each after what reads from it."""

    path: str
    md5: str
    locked_md5: str | None
    origins: tuple[Origin, ...]
    recorded: bool
    """Whether there is a database of runs at all."""


def trace(path: str) -> Lineage:
    """Trace a file that a stage of dvc.yaml wrote back to its sources.

    Raises InputError for any other file, and for one that is not there.
    """
    stages, locked = dvc_yaml.read(), dvc_lock.read_lock()
    name = _in_project(path)
    writer = {out: stage for stage in stages.values() for out in stage.files}
    if name not in writer:
        raise InputError(_unknown(path, list(writer)))
    if not Path(name).is_file():
        raise InputError(
            f"{path} is not there: bring it back with `dvc checkout {name}`, "
            "or make it with `adamerge run`"
        )
    recorded = DATABASE.is_file()
    search = _Search(writer, locked, Store() if recorded else None)
    content = md5(Path(name))
    search.visit(name, content)
    entry = locked.get(writer[name].name)
    in_lock = entry.outs.get(name) if entry else None
    return Lineage(name, content, in_lock, tuple(search.found.values()), recorded)


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
            if path not in self._writer or self._is_known(path, content):
                continue
            origin = self._origin(path, content)
            self.found[origin.stage, content] = origin
            waiting += origin.reads.items()

    def _is_known(self, path: str, content: str) -> bool:
        return any(origin.writes.get(path) == content for origin in self.found.values())

    def _origin(self, path: str, content: str) -> Origin:
        stage = self._writer[path]
        run = self._store.find({path: content}) if self._store else None
        if run:
            return _recorded(stage, run)
        entry = self._locked.get(stage.name)
        if entry and entry.outs.get(path) == content:
            return _from_lock(stage, entry)
        nothing: dict[str, str] = {}
        written = {path: content}
        return Origin(
            stage.name, stage.cmd, None, None, None, None, nothing, nothing, nothing, written
        )


def _recorded(stage: Stage, run: FoundRun) -> Origin:
    reads, code = _split(run.deps())
    return Origin(
        stage.name,
        run.fact("cmd") or stage.cmd,
        run.run_id,
        run.page,
        run.fact("git.commit"),
        run.fact("git.dirty") == "true",
        run.params,
        reads,
        code,
        run.outs(),
    )


def _from_lock(stage: Stage, entry: Locked) -> Origin:
    reads, code = _split(entry.deps)
    return Origin(
        stage.name, stage.cmd, None, None, None, None, entry.params, reads, code, entry.outs
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


def as_json(lineage: Lineage) -> str:
    """Format a lineage with everything in it, for programs."""
    return json.dumps(asdict(lineage), indent=2)


def as_text(lineage: Lineage) -> str:
    """Format a lineage for a person: the file's origin, then a block for each run upstream."""
    first, *upstream = lineage.origins
    lines = [lineage.path, *_indent([f"md5      {lineage.md5}{_compare(lineage)}"])]
    lines += _indent(_describe(first, lineage))
    if upstream:
        lines.append(f"upstream, {len(upstream)} stage runs:")
    for origin in upstream:
        lines.append(f"  {origin.stage}")
        lines += _indent(_describe(origin, lineage)[1:], 4)
        wanted = {path for other in lineage.origins for path in other.reads}
        lines += _indent([f"{h}  {p}" for p, h in origin.writes.items() if p in wanted], 4)
    return "\n".join(lines)


def _compare(lineage: Lineage) -> str:
    if lineage.locked_md5 is None:
        return "  (not in dvc.lock)"
    if lineage.locked_md5 == lineage.md5:
        return "  (as in dvc.lock)"
    return f"  differs from dvc.lock, which has {lineage.locked_md5}"


def _params_in_a_line(params: Mapping[str, Any]) -> str:
    """Keys and values; of a stage that reads whole sections, their names."""
    if len(params) <= _PARAMS_IN_A_LINE:
        return ", ".join(f"{key}={value}" for key, value in params.items())
    sections = dict.fromkeys(key.split(".")[0] for key in params)
    return f"{len(params)} in {', '.join(sections)} (--json shows them)"


def _describe(origin: Origin, lineage: Lineage) -> list[str]:
    lines = [f"stage    {origin.stage}"]
    if origin.run_id:
        lines.append(f"run      {origin.run_id}  (adamerge ui, then {origin.page})")
    elif lineage.recorded:
        lines.append("run      no run that wrote this content is recorded")
    else:
        lines.append(f"run      no run is recorded: there is no {DATABASE}")
    lines.append(f"command  {origin.cmd}")
    if origin.params:
        lines.append(f"params   {_params_in_a_line(origin.params)}")
    if origin.run_id:
        dirty = " with uncommitted changes" if origin.dirty else ""
        lines.append(f"commit   {origin.commit or 'none'}{dirty}")
    made = {path for other in lineage.origins for path in other.writes}
    return lines + [f"from     {h}  {path}" for path, h in origin.reads.items() if path not in made]


def _indent(lines: list[str], by: int = 2) -> list[str]:
    return [" " * by + line for line in lines]
