"""Merged weights as MLflow's logged models."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput

from tasks.tracking.pages.run_page import MERGED, TAG, fit, flatten, how_to_load
from tasks.tracking.runs import Runs


class MergedModels:
    """The merged models of the project whose runs are `runs`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._client = runs.client

    def log(self, run_id: str, start: Mapping[str, Any], outs: Mapping[str, str]) -> None:
        """Log merged weights as logged models: a few lines say where DVC has them."""
        for path, digest in outs.items():
            match = MERGED.fullmatch(path)
            if not match or self.find(digest, run_id):
                continue
            model = self._client.create_logged_model(
                self._runs.experiment(start["suite"]),
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

    def find(self, digest: str, run_id: str | None = None) -> LoggedModel | None:
        """Find the latest logged model with these weights, of this run if one is given."""
        conditions = f"tags.`{TAG}md5` = '{digest}'"
        if run_id:
            conditions += f" AND source_run_id = '{run_id}'"
        found = self._client.search_logged_models(
            self._runs.all_experiments(), conditions, max_results=1
        )
        return found[0] if found else None
