"""What the page of a pipeline's run says: what came out, what ran, by whom, and its graph."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

from tasks.graph.dvc_yaml import phase_of
from tasks.report.escapes import in_markdown
from tasks.running.durations import clock
from tasks.tracking.found_run import FoundRun
from tasks.tracking.pages import addresses
from tasks.tracking.pages.graph_page import OUTCOMES, Node, count, labels
from tasks.tracking.pages.run_page import LONGEST_NOTE, shorten

_ENDS = {"FINISHED": "ran", "FAILED": "failed"}
_LINKS_OF_A_PHASE = (12, 8, 5, 3, 2, 1)  # the first that the description has room for
_ERRORS = 5


def nodes(start: Mapping[str, Any], run: FoundRun, children: Sequence[FoundRun]) -> list[Node]:
    """List the stages of a pipeline run in an order in which they can run.

    Of a flow, all of its graph; else those that ran, as only their runs tell of one.
    """
    ran = {child.stage: child for child in sorted(children, key=lambda child: child.start_ms)}
    cached = run.cached()
    graph = start.get("graph") or _of_runs(ran)
    return [
        _node(name, about["phase"], tuple(about["above"]), ran.get(name), cached.get(name))
        for name, about in graph.items()
    ]


def _node(
    name: str, phase: str, above: tuple[str, ...], ran: FoundRun | None, cached: str | None
) -> Node:
    if ran:
        return Node(name, phase, _ENDS.get(ran.status, "killed"), ran.page, above, ran.seconds)
    return Node(name, phase, "not run" if cached is None else "cached", cached or "", above)


def _of_runs(ran: Mapping[str, FoundRun]) -> dict[str, dict[str, Any]]:
    """Make a graph of stage runs: each after those that wrote what it read."""
    writer = {path: name for name, run in ran.items() for path in run.outs()}
    above = {
        name: sorted({writer[path] for path in run.deps() if path in writer} - {name})
        for name, run in ran.items()
    }
    return {
        name: {"phase": phase_of(ran[name].fact("cmd") or name), "above": above[name]}
        for name in TopologicalSorter(above).static_order()
    }


def facts(start: Mapping[str, Any], end: Mapping[str, Any], stages: Sequence[Node]) -> list[str]:
    """Say in lines of plain text how a pipeline run ended, and who began it with what."""
    began = datetime.fromtimestamp(start["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    commit = f"commit {start['commit'][:12]}" if start["commit"] else "no commit"
    dirty = " with uncommitted changes" if start["dirty"] else ""
    took = clock(max(0.0, end["time"] - start["time"]))
    return [
        f"{end['status']} after {took}: {len(stages)} stages, {count(stages) or 'none'}",
        f"{start['cmd']}, begun {began} by {start['user']} on {start['host']}, {commit}{dirty}",
        *([f"reason: {start['reason']}"] if start.get("reason") else []),
    ]


def description(
    start: Mapping[str, Any],
    end: Mapping[str, Any],
    run: FoundRun,
    stages: Sequence[Node],
    results: str,
) -> str:
    """Write the description of a pipeline's run in Markdown. results: its table, may be empty."""
    ended, began, *reason = (in_markdown(line) for line in facts(start, end, stages))
    links = [f"[graph]({addresses.graph(run.run_id)})"]
    if results:
        report = addresses.artifact(run.experiment_id, run.run_id, "report/index.html")
        links.append(f"[report]({report})")
    if not start.get("adopted"):
        links.append(f"[Prefect]({addresses.flow_run(start['run'])}) (while `adamerge ui` runs)")
    parts = [
        f"**{ended}**",
        *_failures(stages),
        " · ".join(links),
        *([results] if results else []),
        "  \n".join([began, *reason]),
    ]
    texts = ("\n\n".join([*parts, _phases(stages, shown)]) for shown in _LINKS_OF_A_PHASE)
    fitting = (text for text in texts if len(text) <= LONGEST_NOTE)
    return next(fitting, shorten("\n\n".join(parts)))


def _failures(stages: Sequence[Node]) -> list[str]:
    failed = [node for node in stages if node.outcome == "failed"]
    if not failed:
        return []
    links = ", ".join(_link(node, node.name) for node in failed[:_ERRORS])
    return [f"Failed: {links}{_more(failed, _ERRORS)}"]


def _phases(stages: Sequence[Node], shown: int) -> str:
    """Write a table of the phases in the order of the graph, each with links to `shown` stages."""
    phases: dict[str, list[Node]] = {}
    for node in stages:
        phases.setdefault(node.phase, []).append(node)
    rows = []
    for phase, members in phases.items():
        links = [_link(node, label) for node, label in zip(members, labels(members), strict=True)]
        rows.append(
            f"| {phase} | {count(members)} | {' '.join(links[:shown])}{_more(links, shown)} |"
        )
    return "| phase | stages | |\n|---|---|---|\n" + "\n".join(rows)


def _link(node: Node, label: str) -> str:
    name = f"{OUTCOMES[node.outcome]} {in_markdown(label)}"
    return f"[{name}]({node.page})" if node.page else name


def _more(items: Sequence[object], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""
