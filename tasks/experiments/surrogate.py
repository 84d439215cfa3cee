"""surrogate: whether the entropy of a prediction stands in for its loss (arXiv 2310.02575, section
3), before, along and after fine-tuning and adaptation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adamerge_core.entropy import softmax_entropy
from adamerge_core.rank_correlation import spearman
from adamerge_core.vision.choice import all_logits
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import finetune
from tasks.experiments.measuring import Row, each_of
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, vectors_of
from tasks.graph.templates import ENCODER, SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_heads, open_split
from tasks.shared.long_tables import ACCURACY, ENTROPY, MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.resuming import resumed
from tasks.shared.task_vectors import open_task_vectors
from tasks.shared.training import finetune_settings
from tasks.suite.experiments.surrogate import Surrogate
from tasks.suite.experiments.tables import (
    ADAPTED,
    ALL_TASKS,
    FINETUNED,
    LOSS,
    PRETRAINED,
    SPEARMAN,
    START,
    TENTHS,
)
from tasks.suite.methods import AdaptMethod, Method, parse_as
from tasks.suite.sections import Finetune

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

_MODULE, _FINETUNING = "tasks.experiments.surrogate", "finetuning"


class _Step(Protocol):
    """A step of a training."""

    @property
    def step(self) -> int: ...


AnyStep = TypeVar("AnyStep", bound=_Step)

_Samples = dict[str, list[float]]
"""By metric a value an image."""


def stages(suite: "Suite") -> list[Stage]:
    """Make a template along fine-tuning, and one along each adaptation."""
    methods = Surrogate.of(suite.raw).merging
    return [_of_finetuning(suite), *(_of_a_method(suite, *each) for each in methods.items())]


def _of_finetuning(suite: "Suite") -> Stage:
    model, size = suite.model.name, str(suite.size)
    trains = not suite.imported
    return template(
        "surrogate",
        _MODULE,
        {"suite": SUITE, "model": model, "size": size, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            paths.pretrained(model),
            *(paths.finetuned(model, task, SEED) for task in suite.tasks),
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, size, "test"),
            *(split_files(suite.tasks, size, "train") if trains else ()),
        ],
        params=[
            "tasks",
            *(f"{Surrogate.key}.{key}" for key in ("images", "finetuning")),
            *(["finetune"] if trains else []),
            *ENCODER,
        ],
        outs=[paths.experiment(SUITE, "surrogate_finetuning", "moments", SEED)],
    )


def _of_a_method(suite: "Suite", name: str, method: Method) -> Stage:
    return template(
        f"surrogate_{name}",
        _MODULE,
        options_of(suite) | {"method": name, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, suite.size, "test"),
        ],
        code=method.modules,
        params=[
            "tasks",
            *(f"{Surrogate.key}.{key}" for key in ("images", "adapting", f"methods.{name}")),
            "compute",
            "model",
        ],
        outs=[paths.experiment(SUITE, "surrogate", name, SEED)],
    )


def run(work: Work) -> None:
    """Write correlations, means and tenths at each moment, in long form: of fine-tuning, or of the
    adaptation that the command names.
    """
    device = set_up(work.params["compute"])
    suite, name = work.options["suite"], work.options.get("method")
    if name is None:
        table = paths.experiment(suite, "surrogate_finetuning", "moments", work.seed)
        moments = _along_finetuning(work, device)
    else:
        table = paths.experiment(suite, "surrogate", name, work.seed)
        moments = _along_adaptation(work, name, device)
    rows = [
        {"setting": moment, "method": name or _FINETUNING, "seed": work.seed, **row}
        for moment, found in moments.items()
        for row in _correlated(found)
    ]
    write_long(table, MEASURED_IN_EXPERIMENT, rows)


def _along_finetuning(work: Work, device: torch.device) -> dict[str, dict[str, _Samples]]:
    """Fine-tune each task as the suite does, as far as the last moment before the end; there the
    suite's own model is read. Returns by moment and task what was measured.
    """
    tasks, model, size = work.params["tasks"], work.options["model"], work.options["size"]
    settings = work.params["experiments"]["surrogate"]
    encoder, heads = open_encoder(work.params["model"], device), open_heads(model, tasks, device)
    test = _first(open_split(tasks, size, "test"), settings["images"])

    def rows_of(task: str) -> list[Row]:
        def measured(_: object = None) -> _Samples:
            return _samples(encoder, heads[task], test[task])

        load_weights(encoder, paths.pretrained(model))
        found = {PRETRAINED: measured()}
        if "finetune" in work.params:
            training = finetune_settings(work.section(Finetune))
            train = open_split([task], size, "train")
            start = partial(finetune, encoder, {task: heads[task]}, train, training, work.seed)
            at = _steps_at(_FINETUNING, settings["finetuning"], training.steps)
            found |= _along(work, task, start, at, measured)
        load_weights(encoder, paths.finetuned(model, task, work.seed))
        found[FINETUNED] = measured()
        return [{"task": task, "found": found}]

    rows = each_of(work, tasks, rows_of)
    return {
        moment: {row["task"]: row["found"][moment] for row in rows} for moment in rows[0]["found"]
    }


def _along_adaptation(
    work: Work, name: str, device: torch.device
) -> dict[str, dict[str, _Samples]]:
    """Adapt on all test images; returns by moment and task what was measured."""
    tasks, model = work.params["tasks"], work.options["model"]
    settings = work.params["experiments"]["surrogate"]
    method = parse_as(AdaptMethod, name, settings["methods"])
    encoder, heads = open_encoder(work.params["model"], device), open_heads(model, tasks, device)
    vectors = open_task_vectors(model, tasks, work.seed).to(device)
    test = open_split(tasks, work.options["size"], "test")
    compute = work.params["compute"]
    adaptation = Adaptation.prepare(method, encoder, vectors, heads, test, compute)
    measured_on = _first(test, settings["images"])

    def measured(parameters: Tensor) -> dict[str, _Samples]:
        adaptation.engine.merge(parameters)
        return {task: _samples(encoder, heads[task], part) for task, part in measured_on.items()}

    steps = method.settings.steps
    at = _steps_at("adapting", settings["adapting"], steps) | {ADAPTED: steps}
    start = partial(adaptation.steps, work.seed)
    found = {START: measured(adaptation.start())}
    return found | _along(work, name, start, at, lambda step: measured(step.coefficients))


def _first(data: Mapping[str, LabeledImages], count: int) -> dict[str, LabeledImages]:
    return {n: LabeledImages(p.images[:count], p.labels[:count]) for n, p in data.items()}


def _steps_at(name: str, percents: Sequence[int], steps: int) -> dict[str, int]:
    """Number the steps after which is measured, by moment."""
    return {f"{name}_{percent}": max(1, round(steps * percent / 100)) for percent in percents}


def _along(
    work: Work,
    name: str,
    start: Callable[[Path | None], Iterator[AnyStep]],
    at: Mapping[str, int],
    measured: Callable[[AnyStep], Any],
) -> dict[str, Any]:
    """Take the steps up to the last of `at`, and measure after each that stands there.

    start: begins the steps, or goes on from a state file. name: of the files that survive a kill.
    Returns by moment what was measured.
    """
    if not at:
        return {}
    scratch, last = work.report.scratch, max(at.values())
    rows = ResumableRows(scratch, name)
    state = scratch / f"{name}.safetensors" if scratch else None
    for step in resumed(partial(start, state), state, rows):
        found = measured(step) if step.step in at.values() else None
        rows.append({"step": step.step, "found": found})
        work.report.progress(step.step, last, f"{name} of {work.name}")
        if step.step == last:
            break
    if state:
        state.unlink(missing_ok=True)  # as large as three models, and one a task
    by_step = {row["step"]: row["found"] for row in rows.rows}
    return {moment: by_step[number] for moment, number in at.items()}


def _samples(encoder: nn.Module, head: nn.Module, data: LabeledImages) -> _Samples:
    """Measure entropy and cross-entropy in nats, and 100 or 0 for right or wrong, of each image."""
    logits = all_logits(encoder, {"": head}, {"": data})[""].double()
    labels = torch.from_numpy(np.array(data.labels))
    return {
        ENTROPY: softmax_entropy(logits).tolist(),
        LOSS: F.cross_entropy(logits, labels, reduction="none").tolist(),
        ACCURACY: (100.0 * (logits.argmax(dim=-1) == labels)).tolist(),
    }


def _correlated(found: Mapping[str, _Samples]) -> list[Row]:
    """Correlate entropy and loss per task and over all images; give the means and the tenths."""
    rows: list[Row] = []
    for task, each in found.items():
        entropy, loss = np.array(each[ENTROPY]), np.array(each[LOSS])
        values = {SPEARMAN: spearman(entropy, loss)}
        values |= {name: float(np.mean(each[name])) for name in (ENTROPY, LOSS, ACCURACY)}
        values |= _tenths(entropy, loss)
        rows += [{"task": task, "metric": name, "value": v} for name, v in values.items()]
    pooled = [np.concatenate([each[name] for each in found.values()]) for name in (ENTROPY, LOSS)]
    return [*rows, {"task": ALL_TASKS, "metric": SPEARMAN, "value": spearman(*pooled)}]


def _tenths(entropy: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    """The mean entropy and loss of each tenth of the images, by entropy; fewer than ten images
    stand in several.
    """
    order, means = np.argsort(entropy, kind="stable"), {}
    for number in TENTHS:
        first, end = ((number - 1) * len(order) // 10, number * len(order) // 10)
        part = order[first : max(end, first + 1)]
        means[f"{ENTROPY}_{number}"] = float(entropy[part].mean())
        means[f"{LOSS}_{number}"] = float(loss[part].mean())
    return means


if __name__ == "__main__":
    run_stage(run)
