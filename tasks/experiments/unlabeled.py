"""unlabeled: what an adaptation reaches that sees few images (arXiv 2310.02575, section 4).

It sees the first images that the held-out protocol adapts on, and is measured on the others.
"""

from typing import TYPE_CHECKING

from adamerge_core.errors import InputError
from tasks.experiments.held_out import HeldOut
from tasks.experiments.merged_models import learned
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.suite.experiments.unlabeled import Unlabeled
from tasks.suite.methods import AdaptMethod, parse_as

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

AMOUNT = "${item.amount}"


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method, of a stage an amount and seed."""
    settings = Unlabeled.of(suite.raw)
    return [
        template(
            f"unlabeled_{name}",
            "tasks.experiments.unlabeled",
            {**options_of(suite), "method": name, "amount": AMOUNT, "seed": SEED},
            matrix=axes(suite=suite.name, amount=settings.amounts, seed=suite.seeds),
            deps=[
                *vectors_of(suite, suite.tasks),
                *statistics_of(suite, [method], suite.tasks),
                *heads_of(suite, suite.tasks),
                *split_files(suite.tasks, suite.size, "test"),
            ],
            code=method.modules,
            params=[
                "tasks",
                f"{Unlabeled.key}.methods.{name}",
                "evaluate.held_out_fraction",
                "compute",
                "model",
            ],
            outs=[paths.experiment(SUITE, "unlabeled", f"{name}-{AMOUNT}", SEED)],
        )
        for name, method in settings.merging.items()
    ]


def run(work: Work) -> None:
    """Write accuracy and entropy per task on the held-out part, in long form."""
    name, amount = work.options["method"], work.options["amount"]
    method = parse_as(AdaptMethod, name, work.params["experiments"]["unlabeled"]["methods"])
    problem = HeldOut.open(work)
    seen = _seen({task: len(part.labels) for task, part in problem.seen.items()}, amount)
    adaptation = problem.prepare(method)
    # on no image, the coefficients stay what they start with
    some = any(rows.stop for rows in seen.values())
    parameters = learned(work, name, adaptation, seen) if some else adaptation.start()
    named = {"setting": amount, "method": name, "seed": work.seed}
    write_long(
        paths.experiment(work.options["suite"], "unlabeled", f"{name}-{amount}", work.seed),
        MEASURED_IN_EXPERIMENT,
        [{**named, **row} for row in problem.measure(adaptation, parameters)],
    )


def _seen(counts: dict[str, int], amount: str) -> dict[str, slice]:
    """Select of each task the first of the images there are, as many as `amount` says.

    Raises InputError listing the tasks that have fewer.
    """
    number, _, unit = amount.partition("_")
    if unit == "percent":
        share = float(number) / 100
        return {task: slice(max(1, round(count * share))) for task, count in counts.items()}
    wanted = int(number)
    faults = [
        f"{Unlabeled.key}.images = {wanted}: {task} has {count} to adapt on; give at most so many"
        for task, count in counts.items()
        if count < wanted
    ]
    if faults:
        raise InputError.listing("images to adapt on", faults)
    return dict.fromkeys(counts, slice(wanted))


if __name__ == "__main__":
    run_stage(run)
