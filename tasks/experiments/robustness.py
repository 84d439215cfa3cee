"""robustness: merging methods on corrupted test images, an experiment of the paper's section 4.

As there, the corrupted tasks alone are merged, and what adapts learns on the corrupted images that
it is measured on. `clean` is the images as they are, as many as were corrupted.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.experiments.corrupted_images import CLEAN, open_clean, open_corrupted
from tasks.experiments.merged_models import merged_model
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import code_of, heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import CORRUPTION, SEED, SUITE, axes, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads
from tasks.shared.long_tables import ACCURACY, MEASURED_CORRUPTED, write_long
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.methods import parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def stages(suite: "Suite") -> list[Stage]:
    """Make the templates of the experiment: under corruptions, and on the clean images beside."""
    corruptions = suite.robustness.corruptions
    return [
        _template(suite, "robustness", [name for name in corruptions if name != CLEAN]),
        _template(suite, "robustness_clean", [name for name in corruptions if name == CLEAN]),
    ]


def _template(suite: "Suite", name: str, corruptions: list[str]) -> Stage:
    tasks, size, methods = suite.corrupt.tasks, str(suite.size), suite.robust.values()
    clean = name == "robustness_clean"
    corruption = CLEAN if clean else CORRUPTION
    axis = {} if clean else {"corruption": corruptions}
    return template(
        name,
        "tasks.experiments.robustness",
        {**options_of(suite), "corruption": corruption, "seed": SEED},
        matrix={**axes(suite=suite.name), **axis, **axes(seed=suite.seeds if corruptions else [])},
        deps=[
            *vectors_of(suite, tasks),
            *statistics_of(suite, methods, tasks),
            *heads_of(suite, tasks),
            *(paths.labels(task, size, "test") for task in tasks),
            *(_images_file(task, size, corruption) for task in tasks),
        ],
        code=code_of(methods),
        params=[
            "corrupt.tasks",
            *(["corrupt.images"] if clean else ["corrupt.severities", "robustness.severity"]),
            "robustness.methods",
            "compute",
            "model",
        ],
        outs=[paths.robustness(SUITE, corruption, SEED)],
    )


def _images_file(task: str, size: str, corruption: str) -> Path:
    if corruption == CLEAN:
        return paths.images(task, size, "test")
    return paths.corrupted(task, size, corruption)


def run(work: Work) -> None:
    """Write percent per task for every method, in long form."""
    suite, model, corruption = (work.options[key] for key in ("suite", "model", "corruption"))
    tasks, params = work.params["corrupt"]["tasks"], work.params
    clean = corruption == CLEAN
    data = open_clean(work) if clean else open_corrupted(work, params["robustness"]["severity"])
    device = set_up(params["compute"])
    encoder = open_encoder(params["model"], device)
    heads = open_heads(model, tasks, device)
    task_vectors = open_task_vectors(model, tasks, work.seed).to(device)
    rows = []
    for name, entry in params["robustness"]["methods"].items():
        method = parse_method(entry)
        statistics = open_statistics(model, method.needs, tasks, work.seed, device)
        merged = merged_model(work, name, method, encoder, task_vectors, heads, data, statistics)
        encoder.load_state_dict(merged)
        measured = accuracy(encoder, heads, data)
        rows += [_row(work, name, task, measured[task]) for task in tasks]
    write_long(paths.robustness(suite, corruption, work.seed), MEASURED_CORRUPTED, rows)


def _row(work: Work, method: str, task: str, value: float) -> dict[str, Any]:
    corruption = work.options["corruption"]
    severity = 0 if corruption == CLEAN else work.params["robustness"]["severity"]
    named = {"corruption": corruption, "severity": severity, "method": method, "seed": work.seed}
    return {**named, "task": task, "metric": ACCURACY, "value": value}


if __name__ == "__main__":
    run_stage(run)
