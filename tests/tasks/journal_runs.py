"""Runs of stages and of pipelines as their journals tell them, without the processes."""

from collections.abc import Mapping

from tasks.running.journal import Journal

REVISION = "c" * 40


def stage_run(
    name: str,
    pipeline: str,
    wrote: Mapping[str, str],
    *,
    read: Mapping[str, str] | None = None,
    status: str = "FINISHED",
    commit: str | None = None,
    **owner: object,
) -> None:
    """Write the journal of a stage; `wrote` and `read` have md5s by path."""
    log = Journal()
    facts = {"stage": name, "cmd": f"python -m work.{name.split('@')[0]}", "params": {}}
    about = {"suite": "toy", "pipeline": pipeline, "commit": commit, "dirty": commit is None}
    log.start("stage", **facts, deps=dict(read or {}), **about, **owner)
    log.end(status, outs=dict(wrote) if status == "FINISHED" else {})
