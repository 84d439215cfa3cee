"""corruptions: methods under every corruption and severity (arXiv 2310.02575, section 4), and what
can be told without labels of where they fail.

The corrupted tasks alone are merged. What adapts does so on the clean images, and on the corrupted
ones that it is measured on.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.adamerging.targets import expert_targets
from adamerge_core.checkpoints import StateDict
from adamerge_core.entropy import softmax_entropy
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import all_logits
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.corrupted_images import CLEAN, open_clean, open_corrupted
from tasks.experiments.measuring import Row, each_of
from tasks.experiments.merged_models import merged_model
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import CORRUPTION, SEED, SUITE, axes, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads
from tasks.shared.long_tables import (
    ACCURACY,
    AGREEMENT,
    ENTROPY,
    EVENNESS,
    MEASURED_IN_EXPERIMENT,
    write_long,
)
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments.corruptions import Corruptions
from tasks.suite.methods import Method, parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

CORRUPTED, INDIVIDUAL = "corrupted", "individual"
_MODULE = "tasks.experiments.corruptions"


def setting(corruption: str, severity: int, adapted_on: str) -> str:
    """Name what a row was measured on, and which images its model was adapted on."""
    return f"{corruption}/{severity}/{adapted_on}"


def stages(suite: "Suite") -> list[Stage]:
    """Make two templates a method: its model of the clean images, and the corruptions."""
    return [
        made
        for name, method in suite.studied["corruptions"].merging.items()
        for made in (_on_clean(suite, name, method), _corrupted(suite, name, method))
    ]


def _on_clean(suite: "Suite", name: str, method: Method) -> Stage:
    tasks = suite.corrupt.tasks
    return template(
        f"corruptions_clean_{name}",
        _MODULE,
        options_of(suite) | {"method": name, "corruption": CLEAN, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=_inputs(
            suite, method, [paths.images(task, str(suite.size), "test") for task in tasks]
        ),
        code=method.modules,
        params=["corrupt.tasks", "corrupt.images", *_of_method(name)],
        outs=[
            paths.experiment(SUITE, "corruptions", f"{name}-{CLEAN}", SEED),
            paths.experiment_model(SUITE, "corruptions", name, SEED),
        ],
    )


def _corrupted(suite: "Suite", name: str, method: Method) -> Stage:
    tasks, size = suite.corrupt.tasks, str(suite.size)
    return template(
        f"corruptions_{name}",
        _MODULE,
        options_of(suite) | {"method": name, "corruption": CORRUPTION, "seed": SEED},
        matrix={
            **axes(suite=suite.name),
            "corruption": list(suite.corrupt.corruptions),
            **axes(seed=suite.seeds),
        },
        deps=[
            *_inputs(suite, method, [paths.corrupted(task, size, CORRUPTION) for task in tasks]),
            paths.experiment_model(SUITE, "corruptions", name, SEED),
        ],
        code=method.modules,
        params=["corrupt.tasks", "corrupt.severities", *_chosen(suite), *_of_method(name)],
        outs=[paths.experiment(SUITE, "corruptions", f"{name}-{CORRUPTION}", SEED)],
    )


def _inputs(suite: "Suite", method: Method, images: list[Path]) -> list[Path]:
    tasks = suite.corrupt.tasks
    return [
        *vectors_of(suite, tasks),
        *statistics_of(suite, [method], tasks),
        *heads_of(suite, tasks),
        *(paths.labels(task, str(suite.size), "test") for task in tasks),
        *images,
    ]


def _chosen(suite: "Suite") -> list[str]:
    """Name the setting that takes some of the severities, where a suite has it."""
    return [f"{Corruptions.key}.severities"] if Corruptions.of(suite.raw).severities else []


def _of_method(name: str) -> list[str]:
    return [f"{Corruptions.key}.methods.{name}", "compute", "model"]


def run(work: Work) -> None:
    """Write what a method reaches per task, in long form; on the clean images its model too."""
    suite, name = work.options["suite"], work.options["method"]
    corruption = work.options["corruption"]
    study = _Study(work, name, set_up(work.params["compute"]))
    kept = paths.experiment_model(suite, "corruptions", name, work.seed)
    if corruption == CLEAN:
        data = open_clean(work)
        made = study.model(data, name)
        rows = study.rows(data, {setting(CLEAN, 0, CLEAN): made})
        checkpoints.save(kept, made)
    else:
        made = checkpoints.load(kept)

        def rows_at(severity: int) -> list[Row]:
            data = open_corrupted(work, severity)
            models = {setting(corruption, severity, CLEAN): made}
            if study.method.adapts:
                own = study.model(data, f"{name}-{severity}")
                models[setting(corruption, severity, CORRUPTED)] = own
            return study.rows(data, models)

        severities = work.params["experiments"]["corruptions"].get("severities")
        rows = each_of(work, severities or work.params["corrupt"]["severities"], rows_at)
    table = paths.experiment(suite, "corruptions", f"{name}-{corruption}", work.seed)
    write_long(table, MEASURED_IN_EXPERIMENT, rows)


class _Study:
    """A method, what it merges, and what its models are measured with."""

    def __init__(self, work: Work, name: str, device: torch.device) -> None:
        tasks, model = work.params["corrupt"]["tasks"], work.options["model"]
        self._work, self._name = work, name
        self.method = parse_method(work.params["experiments"]["corruptions"]["methods"][name])
        self._encoder = open_encoder(work.params["model"], device)
        self._heads = open_heads(model, tasks, device)
        self._vectors: TaskVectors = open_task_vectors(model, tasks, work.seed).to(device)
        self._statistics = open_statistics(model, self.method.needs, tasks, work.seed, device)

    def model(self, data: Mapping[str, LabeledImages], state: str) -> StateDict:
        """Merge; what adapts learns on the images of `data`, and keeps its state under a name."""
        return merged_model(
            self._work,
            state,
            self.method,
            self._encoder,
            self._vectors,
            self._heads,
            data,
            self._statistics,
        )

    def rows(self, data: Mapping[str, LabeledImages], models: Mapping[str, StateDict]) -> list[Row]:
        """Measure models, by setting, and the individual ones on the images of `data`."""
        images = {task: part.images for task, part in data.items()}
        expected = expert_targets(self._encoder, self._vectors, self._heads, images)
        experts = {task: each.argmax(dim=-1) for task, each in expected.items()}
        rows = []
        for named, model in models.items():
            self._encoder.load_state_dict(model)
            logits = all_logits(self._encoder, self._heads, data)
            for task, part in data.items():
                found = measures(logits[task], part.labels, experts[task])
                right = 100 * float((experts[task].numpy() == part.labels).mean())
                rows += [self._row(named, self._name, task, *each) for each in found.items()]
                rows.append(self._row(named, INDIVIDUAL, task, ACCURACY, right))
        return rows

    def _row(self, named: str, method: str, task: str, metric: str, value: float) -> Row:
        where = {"setting": named, "method": method, "seed": self._work.seed}
        return {**where, "task": task, "metric": metric, "value": value}


def measures(logits: Tensor, labels: np.ndarray, experts: Tensor) -> dict[str, float]:
    """Measure the predictions of a task: by its labels, and three ways that need none.

    logits: [N, C]; labels: [N]; experts: the classes [N] that the individual model names. Accuracy
    and agreement with the expert are in percent; entropy is the images' mean, in nats; evenness is
    the entropy of the mean prediction over log C: 1 where all classes are predicted alike, 0 where
    one alone is.
    """
    mean, named = logits.double().softmax(dim=-1).mean(dim=0), logits.argmax(dim=-1)
    return {
        ACCURACY: 100 * float((named.numpy() == labels).mean()),
        ENTROPY: float(softmax_entropy(logits).double().mean()),
        EVENNESS: float(-torch.xlogy(mean, mean).sum()) / math.log(len(mean)),
        AGREEMENT: 100 * float((named == experts).double().mean()),
    }


if __name__ == "__main__":
    run_stage(run)
