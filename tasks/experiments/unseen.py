"""unseen: merged models on tasks that are left out of the merge (arXiv 2310.02575, section 4)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adamerge_core import checkpoints
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
from tasks.suite.experiments.unseen import Unseen, numbered_pairs
from tasks.suite.methods import parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

_MODULE, _PRETRAINED, _PAIR = "tasks.experiments.unseen", "pretrained", "${item.pair}"
_PARAMS = (f"{Unseen.key}.methods", "compute", "model")


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each split, of a stage a seed, and one for the pairs."""
    settings = Unseen.of(suite.raw)
    made = [_of_a_split(suite, settings, split) for split in settings.splits]
    return [*made, _of_pairs(suite, settings)]


def _of_a_split(suite: "Suite", settings: Unseen, split: str) -> Stage:
    merged = [task for task in suite.tasks if task not in settings.splits[split]]
    return template(
        f"unseen_{split}",
        _MODULE,
        options_of(suite) | {"split": split, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        params=["tasks", f"{Unseen.key}.splits.{split}", *_PARAMS],
        outs=[paths.experiment(SUITE, "unseen", split, SEED)],
        **_inputs(suite, settings, merged),
    )


def _of_pairs(suite: "Suite", settings: Unseen) -> Stage:
    pairs = list(settings.pairs_of(suite.tasks))
    return template(
        "unseen_pair",
        _MODULE,
        options_of(suite) | {"pair": _PAIR, "seed": SEED},
        matrix=axes(suite=suite.name, pair=pairs, seed=suite.seeds),
        params=["tasks", *_PARAMS],
        outs=[paths.experiment(SUITE, "unseen", f"pair-{_PAIR}", SEED)],
        **_inputs(suite, settings, suite.tasks),
    )


def _inputs(suite: "Suite", settings: Unseen, merged: Sequence[str]) -> dict[str, Any]:
    methods = settings.merging.values()
    return {
        "deps": [
            *vectors_of(suite, merged),
            *statistics_of(suite, methods, merged),
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, suite.size, "test"),
        ],
        "code": code_of(methods),
    }


def run(work: Work) -> None:
    """Write what every method reaches, in long form: of a split on all tasks, merged and left out,
    of a pair on its two.
    """
    suite, model, tasks = work.options["suite"], work.options["model"], work.params["tasks"]
    settings = work.params["experiments"]["unseen"]
    left_out: Sequence[str]
    measured: Sequence[str]
    if "pair" in work.options:
        left_out = measured = numbered_pairs(tasks)[work.options["pair"]]
        named, item = "+".join(left_out), f"pair-{work.options['pair']}"
    else:
        named = item = work.options["split"]
        left_out, measured = settings["splits"][named], tasks
    merged = [task for task in tasks if task not in left_out]
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
        found = measure(encoder, made, heads, {task: test[task] for task in measured})
        return [{"setting": named, "method": name, "seed": work.seed, **row} for row in found]

    rows = each_of(work, [_PRETRAINED, *settings["methods"]], rows_of)
    write_long(paths.experiment(suite, "unseen", item, work.seed), MEASURED_IN_EXPERIMENT, rows)


if __name__ == "__main__":
    run_stage(run)
