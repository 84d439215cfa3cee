"""The MLflow store of a project: what a run holds there, and how runs are found again.

The only module that imports mlflow. The store is mlflow.db and mlartifacts/ in the project's
root; the experiment is the suite; a pipeline run is a run there, and its stage runs are its
children. Everything here may be done twice with the same result, so that an ingestion cut in the
middle is simply repeated.
"""

import json
import logging
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tasks import results
from tasks.database import DATABASE, probe
from tasks.dvc_file import is_code
from tasks.files import Files
from tasks.hashes import md5, stored
from tasks.run_page import (
    IMAGES,
    MERGED,
    NOTE,
    READS,
    TAG,
    batches,
    figures_folder,
    final_metrics,
    fit,
    flatten,
    how_to_load,
    metric_name,
    origin,
    prefixed,
    reads,
    shorten,
    tag_name,
)

# it tells of every table it makes
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

ARTIFACTS = Path("mlartifacts")

_SHOWN = (".json", ".csv", ".html", ".md", ".png")


@dataclass(frozen=True)
class FoundRun:
    """A run that wrote a certain file."""

    run_id: str
    experiment_id: str
    status: str
    start_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> "FoundRun":
        info = run.info
        return cls(
            info.run_id,
            info.experiment_id,
            info.status,
            info.start_time,
            run.data.params,
            run.data.tags,
        )

    @property
    def page(self) -> str:
        """The address of the run's page below that of MLflow's server."""
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def deps(self) -> dict[str, str]:
        """What it read: md5s by path."""
        parts = sorted((key, value) for key, value in self.tags.items() if key.startswith(READS))
        return {path: digest for _, part in parts for path, digest in json.loads(part).items()}

    def outs(self) -> dict[str, str]:
        """What it wrote: md5s by path."""
        return prefixed(self.tags, "out/")

    def fact(self, name: str) -> str | None:
        return self.tags.get(TAG + name)


class Store:
    """The MLflow store of the project in the current folder."""

    def __init__(self) -> None:
        """Opens it, and makes it where there is none. Raises TrackingError."""
        probe(DATABASE)
        address = f"sqlite:///{DATABASE.resolve()}"  # MLflow keeps connections by address
        self._client = MlflowClient(address, address)
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    # runs

    def begin_pipeline(self, start: Mapping[str, Any]) -> str:
        """The run of a pipeline, made at its first call; `start` is its journal's first line."""
        key = start["run"]
        if key not in self._parents:
            tags = {
                **origin(start),
                TAG + "pipeline": key,
                "mlflow.runName": start["name"],
            }
            self._parents[key] = self._run_tagged("pipeline", key, start, tags)
        return self._parents[key]

    def begin_stage(self, start: Mapping[str, Any], parent: str) -> str:
        """The run of a stage, below that of its pipeline."""
        upstream = self._upstream(start["deps"])
        tags = {
            **origin(start),
            **reads(start["deps"]),
            TAG + "stage": start["stage"],
            TAG + "upstream": fit(" ".join(sorted({run.run_id for run in upstream.values()}))),
            "mlflow.runName": start["stage"],
            "mlflow.parentRunId": parent,
        }
        run_id = self._run_tagged("journal", start["run"], start, tags)
        self._log_params(run_id, start["params"])
        self._log_inputs(run_id, start["deps"])
        return run_id

    def log_points(self, run_id: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Points of metric curves; a point that is there already is not added again."""
        metrics = [
            Metric(metric_name(name), value, int(point["time"] * 1000), point["step"])
            for point in points
            for name, value in point["values"].items()
        ]
        for batch in batches(metrics, 1000):
            self._client.log_batch(run_id, metrics=batch)

    def finish_stage(self, run_id: str, start: Mapping[str, Any], end: Mapping[str, Any]) -> None:
        """What a stage wrote, and how it ended."""
        outs: Mapping[str, str] = end.get("outs", {})
        tags = {tag_name("out", path): digest for path, digest in outs.items()}
        tags[NOTE] = self._describe(start, end, outs)
        for fact in ("signature", "error"):
            if fact in end:
                tags[TAG + fact] = fit(str(end[fact]))
        self._set_tags(run_id, tags)
        self._log_files(run_id, outs)
        self._log_models(run_id, start, outs)
        self.log_points(run_id, [final_metrics(outs, end["time"])])
        self._client.set_terminated(run_id, end["status"], int(end["time"] * 1000))

    def add_cached(
        self, parent: str, start: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
    ) -> None:
        """Light runs below `parent` for stages that were up to date; each points to its source."""
        there = {run.data.tags[TAG + "stage"] for run in self._children(parent)} if events else {}
        for event in events:
            if event["stage"] not in there:
                self._add_cached(parent, start, event)

    def _add_cached(self, parent: str, start: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        source = self.find(event["outs"], event["signature"])
        tags = {
            **origin(start),
            TAG + "stage": event["stage"],
            TAG + "cached": "true",
            "mlflow.runName": f"[cached] {event['stage']}",
            "mlflow.parentRunId": parent,
            NOTE: "Nothing had changed; no run that wrote these files is recorded.",
        }
        if source:
            tags[TAG + "source_run"] = source.run_id
            tags[NOTE] = f"Nothing had changed: the files are those of {_link(source)}."
        at = int(event["time"] * 1000)
        created = self._client.create_run(self._experiment(start["suite"]), at, tags)
        self._client.set_terminated(created.info.run_id, "FINISHED", at)

    def finish_pipeline(
        self, run_id: str, start: Mapping[str, Any], end: Mapping[str, Any]
    ) -> None:
        """The suite's parameters and results, how many stages ran, and how it ended."""
        self._log_params(run_id, start["params"])
        counts = end.get("counts") or self._count(run_id)
        self._set_tags(run_id, {f"{TAG}stages.{name}": str(n) for name, n in counts.items()})
        if end["status"] != "KILLED":
            self._publish(run_id, start["suite"], end["time"])
        status = end["status"]
        if status == "FINISHED" and counts.get("failed"):
            status = "FAILED"
        self._client.set_terminated(run_id, status, int(end["time"] * 1000))

    # lineage

    def find(self, outs: Mapping[str, str], signature: str | None = None) -> FoundRun | None:
        """The latest stage run that wrote `outs` (paths and md5s), of this signature if one has
        it.
        """
        wrote = [f"tags.`{tag_name('out', path)}` = '{d}'" for path, d in list(outs.items())[:3]]
        if not wrote:
            return None
        exact = [f"tags.`{TAG}signature` = '{signature}'"] if signature else []
        for conditions in ([*wrote, *exact], wrote) if exact else (wrote,):
            found = self._search(" and ".join(conditions))
            if found:
                return FoundRun.of(found)
        return None

    def last_pipeline(self) -> FoundRun | None:
        """The latest pipeline run."""
        run = self._search(f"tags.`{TAG}pipeline` != ''")
        return FoundRun.of(run) if run else None

    def _upstream(self, deps: Mapping[str, str]) -> dict[str, FoundRun]:
        """The run that wrote each dep; code and what no run wrote have none."""
        runs: dict[str, FoundRun] = {}
        for path, digest in deps.items():
            if is_code(path):
                continue
            tag = tag_name("out", path)
            known = next((run for run in runs.values() if run.tags.get(tag) == digest), None)
            found = known or self.find({path: digest})
            if found:
                runs[path] = found
        return runs

    def _search(self, conditions: str) -> Run | None:
        """The latest run of any experiment with these tags."""
        found = self._client.search_runs(
            self._all_experiments(),
            conditions,
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return found[0] if found else None

    # what a run holds

    def _run_tagged(
        self, tag: str, key: str, event: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """The run with this tag, made if there is none."""
        found = self._search(f"tags.`{TAG}{tag}` = '{key}'")
        if found:
            return str(found.info.run_id)
        created = self._client.create_run(
            self._experiment(event["suite"]),
            start_time=int(event["time"] * 1000),
            tags={**tags, TAG + tag: key},
        )
        return str(created.info.run_id)

    def _experiment(self, suite: str) -> str:
        if suite not in self._experiments:
            self._all_experiments()
        if suite not in self._experiments:
            where = ARTIFACTS.resolve().as_uri()
            kind = {"mlflow.experimentKind": "custom_model_development"}  # which pages it gets
            self._experiments[suite] = self._client.create_experiment(suite, where, kind)
        return self._experiments[suite]

    def _all_experiments(self) -> list[str]:
        if not self._experiments:
            found = self._client.search_experiments()
            self._experiments = {each.name: each.experiment_id for each in found}
        return list(self._experiments.values())

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        flat = [Param(metric_name(key), fit(value, 6000)) for key, value in flatten(params)]
        for batch in batches(flat, 100):
            self._client.log_batch(run_id, params=batch)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        for batch in batches([RunTag(key, value) for key, value in tags.items()], 100):
            self._client.log_batch(run_id, tags=batch)

    def _log_inputs(self, run_id: str, deps: Mapping[str, str]) -> None:
        """Prepared images as datasets, merged models as model inputs."""
        datasets = [
            DatasetInput(
                Dataset(
                    name=f"{match['task']}/{match['split']}",
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
            if MERGED.fullmatch(path) and (model := self._model(digest))
        ]
        if datasets or models:
            self._client.log_inputs(run_id, datasets=datasets, models=models)

    def _log_files(self, run_id: str, outs: Mapping[str, str]) -> None:
        """Metrics, curves, figures and pages as artifacts; weights and images stay with DVC."""
        for path, digest in outs.items():
            if path.endswith(_SHOWN) and (source := stored(Path(path), digest)):
                self._log_file(run_id, source, Path(path).name, figures_folder(path))

    def _log_file(self, run_id: str, source: Path, name: str, folder: str | None = None) -> None:
        if source.name == name:
            self._client.log_artifact(run_id, str(source), folder)
            return
        with tempfile.TemporaryDirectory() as temporary:  # from DVC's cache, named by its hash
            copy = Path(temporary) / name
            copy.write_bytes(source.read_bytes())
            self._client.log_artifact(run_id, str(copy), folder)

    def _log_models(self, run_id: str, start: Mapping[str, Any], outs: Mapping[str, str]) -> None:
        """Merged weights as logged models: a few lines say where DVC has them."""
        for path, digest in outs.items():
            match = MERGED.fullmatch(path)
            if not match or self._model(digest, run_id):
                continue
            model = self._client.create_logged_model(
                self._experiment(start["suite"]),
                name=f"{match['method']}-seed-{match['seed']}-{match['protocol']}",
                source_run_id=run_id,
                tags={
                    TAG + "path": path,
                    TAG + "md5": digest,
                    TAG + "stage": start["stage"],
                },
                params={key: fit(value, 250) for key, value in flatten(start["params"])},
                model_type="merged weights",
            )
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "how_to_load.md").write_text(how_to_load(path, digest), "utf-8")
                self._client.log_model_artifacts(model.model_id, folder)
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])

    def _model(self, digest: str, run_id: str | None = None) -> LoggedModel | None:
        """The latest logged model with these weights, of this run if one is given."""
        conditions = f"tags.`{TAG}md5` = '{digest}'"
        if run_id:
            conditions += f" AND source_run_id = '{run_id}'"
        found = self._client.search_logged_models(
            self._all_experiments(), conditions, max_results=1
        )
        return found[0] if found else None

    def _count(self, parent: str) -> dict[str, int]:
        """How many of a pipeline run's stage runs ended in which way."""
        children = self._children(parent)
        failed = sum(run.info.status != "FINISHED" for run in children)
        return {"run": len(children) - failed, "failed": failed}

    def _children(self, parent: str) -> Sequence[Run]:
        experiment = self._client.get_run(parent).info.experiment_id
        conditions = f"tags.`mlflow.parentRunId` = '{parent}'"
        return self._client.search_runs([experiment], conditions, max_results=5000)

    def _publish(self, run_id: str, suite: str, time: float) -> None:
        """The results of the suite on its pipeline run, the best merged model in the registry."""
        rows = results.read(suite)
        values = {f"average/{p}/{m}": value for (p, m), value in results.averages(rows).items()}
        self.log_points(run_id, [{"time": time, "step": 0, "values": values}])
        for name in ("results.csv", "index.html", "report.md"):
            path = Files(suite).report / name
            if path.is_file():
                self._log_file(run_id, path, name, "report")
        best = results.best_merged(suite, rows)
        if best:
            self._register(suite, *best)

    def _register(self, suite: str, row: results.Row, path: Path) -> None:
        """The merged model `path` as the version `best` of the registered model <suite>-merged."""
        digest, name = md5(path), f"{suite}-merged"
        model = self._model(digest)
        if model is None:  # made before MLflow's database was: no run to lead to
            return
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(
                name, description=f"The best merged model of the suite {suite} (alias best)."
            )
        versions = self._client.search_model_versions(f"name = '{name}'")
        version = next((v for v in versions if v.tags.get(TAG + "md5") == digest), None)
        if version is None:
            version = self._client.create_model_version(
                name,
                source=f"models:/{model.model_id}",
                run_id=model.source_run_id,
                model_id=model.model_id,
                tags={TAG + "path": path.as_posix(), TAG + "md5": digest},
                description=f"{row.method}, seed {row.seed}: {row.average:.1f} % on average",
            )
        self._client.set_registered_model_alias(name, "best", version.version)

    def _describe(
        self, start: Mapping[str, Any], end: Mapping[str, Any], outs: Mapping[str, str]
    ) -> str:
        """The description on the run's page: what was read, from which runs, and what written."""
        upstream = self._upstream(start["deps"])
        read = [
            f"| {path} | `{digest}` | {_link(upstream[path]) if path in upstream else ''} |"
            for path, digest in start["deps"].items()
        ]
        wrote = [f"| {path} | `{digest}` |" for path, digest in outs.items()]
        parts = [
            f"`{start['cmd']}`",
            *([f"**{end['status']}**: {end['error']}"] if "error" in end else []),
            *(["| wrote | md5 |\n|---|---|\n" + "\n".join(wrote)] if wrote else []),
            *(["| read | md5 | written by |\n|---|---|---|\n" + "\n".join(read)] if read else []),
        ]
        return shorten("\n\n".join(parts))


DATABASE_ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error)


def _link(run: FoundRun) -> str:
    return f"[{run.fact('stage')}]({run.page})"
