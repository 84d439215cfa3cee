"""What a project's journals say, as runs of MLflow.

The store is mlflow.db and mlartifacts/ in the project's root; the experiment is the suite; a
pipeline run is a run there, and its stage runs are its children. Everything here may be done twice
with the same result, so that an ingestion cut in the middle is simply repeated.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.report import results
from tasks.report.escapes import in_markdown
from tasks.running.hashes import md5, stored
from tasks.tracking.found_run import FoundRun
from tasks.tracking.models import MergedModels
from tasks.tracking.pages import graph_page, pipeline_page
from tasks.tracking.pages.graph_page import Node
from tasks.tracking.pages.run_page import (
    CACHED,
    GRAPH,
    IMAGES,
    MERGED,
    NOTE,
    READERS,
    READS,
    TAG,
    figures_folder,
    final_metrics,
    fit,
    in_parts,
    origin,
    out_tag,
    prefixed,
    shorten,
    with_readers,
)
from tasks.tracking.registry.offers import best_offer, tolerances_of
from tasks.tracking.registry.registered_model import CHAMPION, ModelRegistry
from tasks.tracking.runs import Runs, is_absent

_AVERAGE = "average/"
_EARLIER = 50  # pipeline runs that are looked at for earlier results
_SHOWN = (".json", ".csv", ".html", ".md", ".png")


class Store(Runs):
    """The MLflow store of the project in the current folder."""

    def __init__(self) -> None:
        """Open the store, and make it where there is none. Raises TrackingError."""
        super().__init__()
        self._models = MergedModels(self)
        self._parents: dict[str, str] = {}

    def begin_pipeline(self, start: Mapping[str, Any]) -> str:
        """Make the run of a pipeline at its first call; `start` is its journal's first line."""
        key = start["run"]
        if key not in self._parents:
            tags = {
                **origin(start),
                TAG + "pipeline": key,
                "mlflow.runName": start["name"],
            }
            self._parents[key] = self.run_tagged("pipeline", key, start, tags)
        return self._parents[key]

    def begin_stage(self, start: Mapping[str, Any], parent: str) -> str:
        """Make the run of a stage, below that of its pipeline."""
        upstream = self.upstream(start["deps"])
        tags = {
            **origin(start),
            **in_parts(READS, start["deps"]),
            TAG + "stage": start["stage"],
            TAG + "upstream": fit(" ".join(sorted({run.run_id for run in upstream.values()}))),
            "mlflow.runName": start["stage"],
            "mlflow.parentRunId": parent,
        }
        run_id = self.run_tagged("journal", start["run"], start, tags)
        self.log_params(run_id, start["params"])
        self._log_inputs(run_id, start["deps"])
        return run_id

    def finish_stage(self, run_id: str, start: Mapping[str, Any], end: Mapping[str, Any]) -> None:
        """Log what a stage wrote, and how it ended."""
        outs: Mapping[str, str] = end.get("outs", {})
        tags = {out_tag(path): digest for path, digest in outs.items()}
        tags[NOTE] = self._describe(start, end, outs)
        for fact in ("signature", "error"):
            if fact in end:
                tags[TAG + fact] = fit(str(end[fact]))
        self.set_tags(run_id, tags)
        self._log_files(run_id, outs)
        self._models.log(run_id, start, outs)
        self.log_points(run_id, [final_metrics(outs, end["time"])])
        self.client.set_terminated(run_id, end["status"], int(end["time"] * 1000))

    def add_cached(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Note on a pipeline's run which stages were up to date, and the runs behind their files.

        A run each would be slower than all else in a pipeline that has nothing to do.
        """
        if not events:
            return
        sources = {e["stage"]: self.find(e["outs"], e["signature"]) for e in events}
        pages = {stage: source.page if source else "" for stage, source in sources.items()}
        known = FoundRun.of(self.client.get_run(run_id)).cached()
        self.set_tags(run_id, in_parts(CACHED, known | pages))

    def finish_pipeline(
        self, run_id: str, start: Mapping[str, Any], end: Mapping[str, Any]
    ) -> None:
        """Log the suite's parameters and results, how many stages ran, and how it ended."""
        self.log_params(run_id, start["params"])
        children = [FoundRun.of(run) for run in self.children(run_id)]
        self._link_down(children)
        table = ""
        if end["status"] != "KILLED" and self._has_results(children, start):
            table = self._publish(run_id, start, end["time"])
        run = FoundRun.of(self.client.get_run(run_id))
        stages = pipeline_page.nodes(start, run, children)
        self._log_graph(run, pipeline_page.facts(start, end, stages), stages)
        counts = end.get("counts", {})
        tags = {f"{TAG}stages.{name}": str(n) for name, n in counts.items()}
        tags[NOTE] = pipeline_page.description(start, end, run, stages, table)
        self.set_tags(run_id, tags)
        self.client.set_terminated(run_id, end["status"], int(end["time"] * 1000))

    def _link_down(self, children: Sequence[FoundRun]) -> None:
        """Note on each run which of these runs read what it wrote."""
        readers: dict[str, dict[str, str]] = {}
        for child in children:
            for run_id in child.upstream():
                readers.setdefault(run_id, {})[child.stage] = child.page
        for run_id, pages in readers.items():
            if self.has_run(run_id):
                run = FoundRun.of(self.client.get_run(run_id))
                known = run.readers() | pages
                note = with_readers(run.tags.get(NOTE, ""), known)
                self.set_tags(run_id, {**in_parts(READERS, known), NOTE: note})

    def _log_graph(self, run: FoundRun, facts: Sequence[str], stages: Sequence[Node]) -> None:
        name = run.tags.get("mlflow.runName", run.run_id)
        page = graph_page.html(f"Pipeline run {name}", facts, stages, "/")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / GRAPH
            path.write_text(page, "utf-8")
            self.client.log_artifact(run.run_id, str(path))

    def end_of_stages(self, run_id: str, end: Mapping[str, Any]) -> dict[str, Any]:
        """Make the end of a pipeline run that said none from the ends of its stages' runs."""
        infos = [run.info for run in self.children(run_id)]
        failed = sum(info.status != "FINISHED" for info in infos)
        last = max((info.end_time or 0 for info in infos), default=0) / 1000
        return {
            "event": "end",
            "status": "FAILED" if failed else "FINISHED",
            "time": last or end["time"],
            "counts": {"run": len(infos) - failed, "failed": failed},
        }

    def pipeline(self, key: str) -> FoundRun | None:
        """Find the run of a pipeline by the key that its journal has."""
        run = self.search(f"tags.`{TAG}pipeline` = '{key}'")
        return FoundRun.of(run) if run else None

    def registered(self, name: str) -> ModelVersion | None:
        """Find a version of a registered model by `NAME` (its champion), `NAME@ALIAS` or
        `NAME/NUMBER`.
        """
        model, _, number = name.partition("/")
        model, _, alias = model.partition("@")
        try:
            if number:
                return self.client.get_model_version(model, number)
            return self.client.get_model_version_by_alias(model, alias or CHAMPION)
        except MlflowException as error:
            if is_absent(error):
                return None
            raise

    def made_results(self, commit: str) -> FoundRun | None:
        """Find the latest run that made a suite's results from a commit."""
        run = self.search(
            f"tags.`{TAG}git.commit` = '{commit}' and tags.`{TAG}stage` LIKE 'report%' "
            "and attributes.status = 'FINISHED'"
        )
        return FoundRun.of(run) if run else None

    def last_pipeline(self) -> FoundRun | None:
        """Find the latest pipeline run."""
        run = self.search(f"tags.`{TAG}pipeline` != ''")
        return FoundRun.of(run) if run else None

    def _log_inputs(self, run_id: str, deps: Mapping[str, str]) -> None:
        """Log prepared images as datasets, merged models as model inputs."""
        datasets = [
            DatasetInput(
                Dataset(
                    name=f"{match['dataset']}/{match['split']}",
                    digest=digest,
                    source_type="local",
                    source=json.dumps({"uri": path}),
                ),
                [InputTag("mlflow.data.context", match["split"])],
            )
            for path, digest in deps.items()
            if (match := IMAGES.fullmatch(path))
        ]
        models = [
            LoggedModelInput(model.model_id)
            for path, digest in deps.items()
            if MERGED.fullmatch(path) and (model := self._models.find(digest))
        ]
        if datasets or models:
            self.client.log_inputs(run_id, datasets=datasets, models=models)

    def _log_files(self, run_id: str, outs: Mapping[str, str]) -> None:
        """Log metrics, curves, figures and pages as artifacts; weights stay with DVC.

        So does the library of the report's charts: MLflow shows a page alone, with its pictures.
        """
        for path, digest in outs.items():
            if path.endswith(_SHOWN) and (source := stored(Path(path), digest)):
                self.log_file(run_id, source, Path(path).name, figures_folder(path))

    def _has_results(self, children: Sequence[FoundRun], start: Mapping[str, Any]) -> bool:
        """Whether the suite's results, as they are now, are those of this pipeline run.

        Of a flow they are: it ends as they are published. Stages that DVC ran without one may have
        made some of the files only, and others may have come since.
        """
        path = paths.report(start["suite"]) / "results.csv"
        if not start.get("adopted"):
            return True
        written = {child.outs().get(path.as_posix()) for child in children}
        return path.is_file() and md5(path) in written

    def _publish(self, run_id: str, start: Mapping[str, Any], time: float) -> str:
        """Log the suite's results on its pipeline run, and offer its best model to the registry.

        Returns the table of results in Markdown, with the change since the pipeline run before.
        """
        suite = start["suite"]
        rows = results.read(suite)
        averages = results.averages(rows)
        values = {f"{_AVERAGE}{p}/{m}": value for (p, m), value in averages.items()}
        before = self._averages_before(run_id, start)
        self.log_points(run_id, [{"time": time, "step": 0, "values": values}])
        for name in ("results.csv", "index.html", "report.md"):
            path = paths.report(suite) / name
            if path.is_file():
                self.log_file(run_id, path, name, "report")
        self._offer(run_id, start, time)
        return results.markdown_table(averages, before)

    def _offer(self, run_id: str, start: Mapping[str, Any], time: float) -> None:
        suite = start["suite"]
        try:
            offer, tolerances = best_offer(suite), tolerances_of(start)
        except InputError as error:
            self.set_tags(run_id, {f"{TAG}not_registered": fit(str(error))})
            return
        if offer:
            ModelRegistry(self, suite).offer(offer, tolerances, run_id, time)

    def _averages_before(
        self, run_id: str, start: Mapping[str, Any]
    ) -> dict[tuple[str, str], float]:
        """Find the averages of the latest pipeline run of the suite before this one that has any,
        by protocol and method.
        """
        earlier = self.client.search_runs(
            [self.experiment(start["suite"])],
            f"tags.`{TAG}pipeline` != '' and attributes.start_time < {int(start['time'] * 1000)}",
            max_results=_EARLIER,
            order_by=["attributes.start_time DESC"],
        )
        for run in earlier:
            found = prefixed(run.data.metrics, _AVERAGE)
            if found and run.info.run_id != run_id:
                return {_pair(name): value for name, value in found.items()}
        return {}

    def _describe(
        self, start: Mapping[str, Any], end: Mapping[str, Any], outs: Mapping[str, str]
    ) -> str:
        """Write the description on a run's page: what was read, from which runs, and written."""
        upstream = self.upstream(start["deps"])
        links = {path: _link(run) for path, run in upstream.items()}
        read = [
            f"| {in_markdown(path)} | `{digest}` | {links.get(path, '')} |"
            for path, digest in start["deps"].items()
        ]
        wrote = [f"| {in_markdown(path)} | `{digest}` |" for path, digest in outs.items()]
        parts = [
            f"`{start['cmd']}`",
            *([f"**{end['status']}**: {in_markdown(end['error'])}"] if "error" in end else []),
            *(["| wrote | md5 |\n|---|---|\n" + "\n".join(wrote)] if wrote else []),
            *(["| read | md5 | written by |\n|---|---|---|\n" + "\n".join(read)] if read else []),
        ]
        return shorten("\n\n".join(parts))


def _pair(name: str) -> tuple[str, str]:
    protocol, _, method = name.partition("/")
    return protocol, method


def _link(run: FoundRun) -> str:
    return f"[{run.fact('stage')}]({run.page})"
