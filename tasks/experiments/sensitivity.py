"""sensitivity: what a rule reaches over its scaling (section 4 of arXiv 2310.02575), and what the
suite's adaptations reach on the same images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.measuring import Row, each_of, measure
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.paths import PROTOCOLS
from tasks.graph.templates import ENCODER, METHOD, SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments.sensitivity import Sensitivity
from tasks.suite.methods import Method, RuleMethod, parse_as

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

_MODULE, _PROTOCOL = "tasks.experiments.sensitivity", PROTOCOLS[0]


def stages(suite: "Suite") -> list[Stage]:
    """Make a template a rule, and one for the suite's adaptations (paper's protocol)."""
    settings = Sensitivity.of(suite.raw)
    rules = [_of_a_rule(suite, settings, *rule) for rule in settings.merging.items()]
    return [*rules, _of_adaptations(suite)]


def _of_a_rule(suite: "Suite", settings: Sensitivity, name: str, method: Method) -> Stage:
    beyond = [f"beyond.{name}"] if name in settings.beyond else []
    return template(
        f"sensitivity_{name}",
        _MODULE,
        options_of(suite) | {"method": name, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *statistics_of(suite, [method], suite.tasks),
            *_measured_on(suite),
        ],
        code=method.modules,
        params=[
            "tasks",
            *(
                f"{Sensitivity.key}.{key}"
                for key in ("scalings", *beyond, "images", f"methods.{name}")
            ),
            *ENCODER,
        ],
        outs=[paths.experiment(SUITE, "sensitivity", name, SEED)],
    )


def _of_adaptations(suite: "Suite") -> Stage:
    return template(
        "sensitivity",
        _MODULE,
        options_of(suite) | {"method": METHOD, "seed": SEED, "protocol": _PROTOCOL},
        matrix=axes(
            suite=suite.name,
            method=[name for name, method in suite.merging.items() if method.adapts],
            seed=suite.seeds,
        ),
        deps=[paths.merged(SUITE, METHOD, SEED, _PROTOCOL), *_measured_on(suite)],
        params=["tasks", f"{Sensitivity.key}.images", *ENCODER],
        outs=[paths.experiment(SUITE, "adapted", METHOD, SEED)],
    )


def _measured_on(suite: "Suite") -> list[Path]:
    return [*heads_of(suite, suite.tasks), *split_files(suite.tasks, suite.size, "test")]


def run(work: Work) -> None:
    """Write accuracy and entropy per task, in long form: of a rule at each scaling, or of a model
    that was adapted, where the command names the protocol.
    """
    tasks, images = work.params["tasks"], work.params["experiments"]["sensitivity"]["images"]
    device = set_up(work.params["compute"])
    encoder = open_encoder(work.params["model"], device)
    heads = open_heads(work.options["model"], tasks, device)
    data = {
        task: LabeledImages(part.images[:images], part.labels[:images])
        for task, part in open_split(tasks, work.options["size"], "test").items()
    }

    def rows_of(setting: str | float, model: StateDict) -> list[Row]:
        named = {"setting": setting, "method": work.options["method"], "seed": work.seed}
        return [{**named, **row} for row in measure(encoder, model, heads, data)]

    suite, name = work.options["suite"], work.options["method"]
    if "protocol" in work.options:
        adapted = checkpoints.load(paths.merged(suite, name, work.seed, work.options["protocol"]))
        table = paths.experiment(suite, "adapted", name, work.seed)
        write_long(table, MEASURED_IN_EXPERIMENT, rows_of("adapted", adapted))
    else:
        table = paths.experiment(suite, "sensitivity", name, work.seed)
        write_long(table, MEASURED_IN_EXPERIMENT, _over_scalings(work, device, rows_of))


def _over_scalings(
    work: Work, device: torch.device, rows_of: Callable[[float, StateDict], list[Row]]
) -> list[Row]:
    """Merge by the rule at every scaling, and collect the rows of each model."""
    settings, model = work.params["experiments"]["sensitivity"], work.options["model"]
    name, tasks = work.options["method"], work.params["tasks"]
    method = parse_as(RuleMethod, name, settings["methods"])
    statistics = open_statistics(model, method.needs, tasks, work.seed, device)
    task_vectors = open_task_vectors(model, tasks, work.seed).to(device)

    def rows_at(scaling: float) -> list[Row]:
        merged = make_model(method.varied(scaling=scaling), task_vectors, statistics)
        return rows_of(scaling, merged)

    scalings = [*settings["scalings"], *settings.get("beyond", {}).get(name, [])]
    return each_of(work, scalings, rows_at)


if __name__ == "__main__":
    run_stage(run)
