"""A lineage for a person: on one screen, whole, as JSON, or as a page."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from tasks.graph.dvc_yaml import phase_of
from tasks.tracking.database import DATABASE
from tasks.tracking.lineage import Lineage, Origin
from tasks.tracking.pages import graph_page
from tasks.tracking.pages.graph_page import Node

_WIDTH = 100
_ROOM = 85  # for the runs of a phase, so that their number has room behind them
_GAP = "   "
_SHORT = 8  # characters of a hash or of a run's id


def as_json(lineage: Lineage) -> str:
    """Format a lineage with everything in it, for programs."""
    return json.dumps(asdict(lineage), indent=2)


def as_text(lineage: Lineage, pages: str | None = None) -> str:
    """Format a lineage on one screen: the file's origin, then what is upstream by phase.

    pages: the address of MLflow's server, where it is up.
    """
    first, *upstream = lineage.origins
    lines = [*_heading(lineage), *_indent(_describe(first, lineage, pages))]
    if upstream:
        lines += ["", f"upstream, {_runs(upstream)}; of each the md5 of a file, and its run:"]
        lines += [
            *_phases(lineage),
            "",
            "all of it: --all, as a page: --html FILE, for programs: --json",
        ]
    return "\n".join(lines)


def as_full_text(lineage: Lineage, pages: str | None = None) -> str:
    """Format a lineage whole: the file's origin, then a block for each run upstream."""
    first, *upstream = lineage.origins
    lines = [*_heading(lineage), *_indent(_describe(first, lineage, pages))]
    if upstream:
        lines.append(f"upstream, {_runs(upstream)}:")
    for origin in upstream:
        lines.append(f"  {origin.stage}")
        lines += _indent(_describe(origin, lineage, pages)[1:], 4)
        wanted = _wanted(lineage)
        lines += _indent([f"{h}  {p}" for p, h in origin.writes.items() if p in wanted], 4)
    return "\n".join(lines)


def as_html(lineage: Lineage, pages: str) -> str:
    """Write a lineage as a page with a link to each run. pages: the address of MLflow's server."""
    wanted = _wanted(lineage) | {lineage.path}
    above = _above(lineage)
    origins = {origin.stage: origin for origin in lineage.origins}
    order = TopologicalSorter(above).static_order()
    nodes = [_node(origins[stage], above[stage], wanted) for stage in order]
    facts = [line.strip() for line in _heading(lineage)[1:]]
    return graph_page.html(f"Lineage of {lineage.path}", facts, nodes, f"{pages}/")


def _node(origin: Origin, above: tuple[str, ...], wanted: set[str]) -> Node:
    written = [f"{p} {h}" for p, h in origin.writes.items() if p in wanted]
    return Node(
        origin.stage,
        phase_of(origin.cmd),
        "recorded" if origin.run_id else "not recorded",
        origin.page or "",
        above,
        origin.seconds,
        ", ".join(written),
    )


def _heading(lineage: Lineage) -> list[str]:
    about = [f"of       {lineage.about}"] if lineage.about else []
    return [lineage.path, *_indent([*about, f"md5      {lineage.md5}{_compare(lineage)}"])]


def _compare(lineage: Lineage) -> str:
    if lineage.locked_md5 is None:
        return "  (not in dvc.lock)"
    if lineage.locked_md5 == lineage.md5:
        return "  (as in dvc.lock)"
    return f"  differs from dvc.lock, which has {lineage.locked_md5}"


def _describe(origin: Origin, lineage: Lineage, pages: str | None) -> list[str]:
    lines = [f"stage    {origin.stage}"]
    if origin.run_id:
        lines += [f"run      {origin.run_id}{_when(origin)}", _page(origin, pages)]
    elif lineage.recorded:
        lines.append("run      no run that wrote this content is recorded")
    else:
        lines.append(f"run      no run is recorded: there is no {DATABASE}")
    lines.append(f"command  {origin.cmd}")
    if origin.params:
        lines.append(f"params   {_params_in_a_line(origin.params)}")
    if origin.run_id:
        lines.append(f"commit   {_commit(origin)}")
    made = {path for other in lineage.origins for path in other.writes}
    return lines + [f"from     {h}  {path}" for path, h in origin.reads.items() if path not in made]


def _page(origin: Origin, pages: str | None) -> str:
    if pages is None:
        return f"page     adamerge ui, then {origin.page}"
    return f"page     {pages}/{origin.page}"


def _when(origin: Origin) -> str:
    if origin.start_ms is None:
        return ""
    began = datetime.fromtimestamp(origin.start_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    took = "" if origin.seconds is None else f", {origin.seconds:.1f} s"
    return f"  {began}{took}"


def _commit(origin: Origin) -> str:
    dirty = " with uncommitted changes" if origin.dirty else ""
    return f"{origin.commit or 'none'}{dirty}"


def _params_in_a_line(params: Mapping[str, Any]) -> str:
    """Keys and values; where these are too long, the names of their sections."""
    text = ", ".join(f"{key}={value}" for key, value in params.items())
    if len(text) <= _WIDTH:
        return text
    sections = dict.fromkeys(key.split(".")[0] for key in params)
    return f"{len(params)} in {', '.join(sections)} (--json shows them)"


def _runs(origins: list[Origin]) -> str:
    """Count stage runs, and say of which commits: `40 stage runs, all of commit 143f5a5`."""
    commits = Counter(_commit(origin)[:_SHORT] for origin in origins if origin.run_id)
    said = f"{len(origins)} stage runs"
    if len(commits) == 1 and commits.total() == len(origins):
        return f"{said}, all of commit {next(iter(commits))}"
    parts = [f"{n} of commit {commit}" for commit, n in commits.most_common()]
    missing = len(origins) - commits.total()
    parts += [f"{missing} not recorded"] if missing else []
    return f"{said} ({', '.join(parts)})"


def _by_phase(lineage: Lineage) -> dict[str, list[Origin]]:
    """Group what is upstream by what it runs, each after all that reads from it."""
    above = _above(lineage)
    depth = dict.fromkeys(above, 0)
    for stage in reversed(tuple(TopologicalSorter(above).static_order())):
        for other in above[stage]:
            depth[other] = max(depth[other], depth[stage] + 1)
    found: dict[str, list[Origin]] = {}
    for origin in lineage.origins[1:]:
        found.setdefault(phase_of(origin.cmd), []).append(origin)
    return dict(sorted(found.items(), key=lambda item: max(depth[o.stage] for o in item[1])))


def _above(lineage: Lineage) -> dict[str, tuple[str, ...]]:
    """List the stages that each of a lineage reads from."""
    writer = {item: o.stage for o in lineage.origins for item in o.writes.items()}
    return {
        origin.stage: tuple(
            dict.fromkeys(writer[item] for item in origin.reads.items() if item in writer)
        )
        for origin in lineage.origins
    }


def _phases(lineage: Lineage) -> list[str]:
    """Write each phase: what it reads from; then its runs, as many as a line has room for."""
    phases, above, wanted = _by_phase(lineage), _above(lineage), _wanted(lineage)
    of = {origin.stage: phase_of(origin.cmd) for origin in lineage.origins}
    lines = []
    for phase, members in phases.items():
        sources = {of[stage] for member in members for stage in above[member.stage]} - {phase}
        order = [each for each in phases if each in sources]
        reads = f"  <- {', '.join(order)}" if order else ""
        lines += [f"  {phase} ({len(members)}){reads}", f"      {_members(members, wanted)}"]
    return lines


def _members(members: list[Origin], wanted: set[str]) -> str:
    labels = graph_page.labels([Node(m.stage, phase_of(m.cmd), "", "") for m in members])
    entries = [
        f"{label} {_hash(member, wanted)} {(member.run_id or 'no run')[:_SHORT]}"
        for label, member in zip(labels, members, strict=True)
    ]
    fitting = [n for n in range(1, len(entries) + 1) if len(_GAP.join(entries[:n])) <= _ROOM]
    shown = fitting[-1] if fitting else 1
    more = f"{_GAP}and {len(entries) - shown} more" if shown < len(entries) else ""
    return _GAP.join(entries[:shown]) + more


def _hash(origin: Origin, wanted: set[str]) -> str:
    written = next((h for path, h in origin.writes.items() if path in wanted), "")
    return written[:_SHORT]


def _wanted(lineage: Lineage) -> set[str]:
    """List what was read of what was written."""
    return {path for other in lineage.origins for path in other.reads}


def _indent(lines: list[str], by: int = 2) -> list[str]:
    return [" " * by + line for line in lines]
