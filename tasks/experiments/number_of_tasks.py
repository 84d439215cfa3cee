"""number_of_tasks: merged models of 2 to all tasks (arXiv 2310.02575, appendix)."""

from typing import TYPE_CHECKING

from adamerge_core.vision.images import LabeledImages
from tasks.experiments.measuring import Row, each_of, measure
from tasks.experiments.merged_models import merged_model
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import code_of, heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments.number_of_tasks import NumberOfTasks, subsets_of
from tasks.suite.methods import parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

_NAME = "number_of_tasks"


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each number of tasks, of a stage a seed."""
    settings = NumberOfTasks.of(suite.raw)
    return [_template(suite, settings, count) for count in sorted(settings.counts)]


def _template(suite: "Suite", settings: NumberOfTasks, count: int) -> Stage:
    methods, tasks = settings.merging.values(), suite.tasks
    return template(
        f"{_NAME}_{count}",
        f"tasks.experiments.{_NAME}",
        options_of(suite) | {"count": str(count), "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, tasks),
            *statistics_of(suite, methods, tasks),
            *heads_of(suite, tasks),
            *split_files(tasks, suite.size, "test"),
        ],
        code=code_of(methods),
        params=[
            "tasks",
            *(f"{NumberOfTasks.key}.{key}" for key in ("subsets", "seed", "images", "methods")),
            "compute",
            "model",
        ],
        outs=[
            paths.experiment(SUITE, _NAME, subset, SEED) for subset in settings.drawn(tasks)[count]
        ],
    )


def run(work: Work) -> None:
    """Write what every method reaches on the tasks of each subset, in long form, a file each."""
    suite, model, tasks = work.options["suite"], work.options["model"], work.params["tasks"]
    settings, count = work.params["experiments"][_NAME], int(work.options["count"])
    subsets = subsets_of(tasks, count, settings["subsets"], settings["seed"])
    device = set_up(work.params["compute"])
    encoder, heads = open_encoder(work.params["model"], device), open_heads(model, tasks, device)
    test = open_split(tasks, work.options["size"], "test")
    first = slice(settings["images"])
    vectors = open_task_vectors(model, tasks, work.seed).to(device)

    def rows_of(item: tuple[str, str]) -> list[Row]:
        subset, name = item
        method, merged = parse_method(settings["methods"][name]), subsets[subset]
        own_heads = {task: heads[task] for task in merged}
        data = {t: LabeledImages(test[t].images[first], test[t].labels[first]) for t in merged}
        statistics = open_statistics(model, method.needs, merged, work.seed, device)
        made = merged_model(
            work,
            f"{name}-{subset}",
            method,
            encoder,
            vectors.select(merged),
            own_heads,
            data,
            statistics,
        )
        named = {"setting": subset, "method": name, "seed": work.seed}
        return [{**named, **row} for row in measure(encoder, made, own_heads, data)]

    items = [(subset, name) for subset in subsets for name in settings["methods"]]
    rows = each_of(work, items, rows_of)
    for subset in subsets:
        write_long(
            paths.experiment(suite, _NAME, subset, work.seed),
            MEASURED_IN_EXPERIMENT,
            [row for row in rows if row["setting"] == subset],
        )


if __name__ == "__main__":
    run_stage(run)
