"""labels: adaptations by entropy, by the experts' labels and by the true ones, on held-out images
(arXiv 2310.02575, the supervised reference).
"""

from typing import TYPE_CHECKING

from tasks.experiments.held_out import HeldOut
from tasks.experiments.merged_models import learned
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.suite.experiments.labels import Labels
from tasks.suite.experiments.tables import LEARNED, START
from tasks.suite.methods import AdaptMethod, parse_as

if TYPE_CHECKING:
    from tasks.suite.schema import Suite


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method, of a stage a seed."""
    return [
        template(
            f"labels_{name}",
            "tasks.experiments.labels",
            {**options_of(suite), "method": name, "seed": SEED},
            matrix=axes(suite=suite.name, seed=suite.seeds),
            deps=[
                *vectors_of(suite, suite.tasks),
                *statistics_of(suite, [method], suite.tasks),
                *heads_of(suite, suite.tasks),
                *split_files(suite.tasks, suite.size, "test"),
            ],
            code=method.modules,
            params=[
                "tasks",
                f"{Labels.key}.methods.{name}",
                "evaluate.held_out_fraction",
                "compute",
                "model",
            ],
            outs=[paths.experiment(SUITE, "labels", name, SEED)],
        )
        for name, method in Labels.of(suite.raw).merging.items()
    ]


def run(work: Work) -> None:
    """Write accuracy and entropy per task on the held-out part, in long form: of the model that the
    adaptation starts with, and of the one that it ends with.
    """
    name = work.options["method"]
    method = parse_as(AdaptMethod, name, work.params["experiments"]["labels"]["methods"])
    problem = HeldOut.open(work)
    adaptation = problem.prepare(method)
    models = {LEARNED: learned(work, name, adaptation), START: adaptation.start()}
    write_long(
        paths.experiment(work.options["suite"], "labels", name, work.seed),
        MEASURED_IN_EXPERIMENT,
        [
            {"setting": setting, "method": name, "seed": work.seed, **row}
            for setting in (START, LEARNED)
            for row in problem.measure(adaptation, models[setting])
        ],
    )


if __name__ == "__main__":
    run_stage(run)
