"""unseen: merged models on tasks that are left out of the merge (arXiv 2310.02575, section 4)."""

from typing import TYPE_CHECKING

from adamerge_core import checkpoints
from tasks.experiments.measuring import Row, each_of, measure
from tasks.experiments.merged_models import merged_model
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments.unseen import Unseen
from tasks.suite.methods import parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

_PRETRAINED = "pretrained"


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each split, of a stage a seed."""
    settings = Unseen.of(suite.raw)
    return [_template(suite, settings, split) for split in settings.splits]


def _template(suite: "Suite", settings: Unseen, split: str) -> Stage:
    merged = [task for task in suite.tasks if task not in settings.splits[split]]
    methods = settings.merging.values()
    return template(
        f"unseen_{split}",
        "tasks.experiments.unseen",
        {"suite": SUITE, "model": suite.model.name, "size": str(suite.size)}
        | {"split": split, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, merged),
            *dict.fromkeys(file for each in methods for file in statistics_of(suite, each, merged)),
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, suite.size, "test"),
        ],
        code=dict.fromkeys(module for method in methods for module in method.modules),
        params=[
            "tasks",
            f"{Unseen.key}.splits.{split}",
            f"{Unseen.key}.methods",
            "compute",
            "model",
        ],
        outs=[paths.experiment(SUITE, "unseen", split, SEED)],
    )


def run(work: Work) -> None:
    """Write what every method reaches on all tasks, merged and left out, in long form."""
    suite, model, split = (work.options[key] for key in ("suite", "model", "split"))
    settings, tasks = work.params["experiments"]["unseen"], work.params["tasks"]
    merged = [task for task in tasks if task not in settings["splits"][split]]
    device = set_up(work.params["compute"])
    encoder, heads = open_encoder(work.params["model"], device), open_heads(model, tasks, device)
    test = open_split(tasks, work.options["size"], "test")
    vectors = open_task_vectors(model, merged, work.seed).to(device)
    own_heads = {task: heads[task] for task in merged}
    seen = {task: test[task] for task in merged}

    def rows_of(name: str) -> list[Row]:
        if name == _PRETRAINED:
            made = checkpoints.load(paths.pretrained(model))
        else:
            method = parse_method(settings["methods"][name])
            statistics = open_statistics(model, method.needs, merged, work.seed, device)
            made = merged_model(work, name, method, encoder, vectors, own_heads, seen, statistics)
        named = {"setting": split, "method": name, "seed": work.seed}
        return [{**named, **row} for row in measure(encoder, made, heads, test)]

    rows = each_of(work, [_PRETRAINED, *settings["methods"]], rows_of)
    write_long(paths.experiment(suite, "unseen", split, work.seed), MEASURED_IN_EXPERIMENT, rows)


if __name__ == "__main__":
    run_stage(run)
