"""unlabeled: what a method reaches that sees few images (arXiv 2310.02575, section 4).

An adaptation learns on the first images that the held-out protocol adapts on, a rule's statistics
are of them, and both are measured on the others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.statistics import collect
from tasks.experiments.held_out import HeldOut
from tasks.experiments.measuring import Row, measure
from tasks.experiments.merged_models import learned
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.methods import make_model
from tasks.suite.experiments.unlabeled import Unlabeled, takes_probes
from tasks.suite.methods import AdaptMethod, RuleMethod, parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

AMOUNT = "${item.amount}"


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method, of a stage an amount and seed."""
    settings = Unlabeled.of(suite.raw)
    reading = settings.reading_statistics
    return [
        template(
            f"unlabeled_{name}",
            "tasks.experiments.unlabeled",
            {**options_of(suite), "method": name, "amount": AMOUNT, "seed": SEED},
            matrix=axes(suite=suite.name, amount=settings.amounts_of(method), seed=suite.seeds),
            deps=[
                *vectors_of(suite, suite.tasks),
                *statistics_of(suite, [method] if name in reading else [], suite.tasks),
                *heads_of(suite, suite.tasks),
                *split_files(suite.tasks, suite.size, "test"),
            ],
            code=method.modules,
            params=[
                "tasks",
                f"{Unlabeled.key}.methods.{name}",
                *([f"{Unlabeled.key}.fisher_probes"] if takes_probes(method) else []),
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
    method = parse_method(work.params["experiments"]["unlabeled"]["methods"][name])
    problem = HeldOut.open(work)
    seen = _seen({task: len(part.labels) for task, part in problem.seen.items()}, amount)
    if isinstance(method, RuleMethod):
        rows = _of_rule(problem, method, seen)
    else:
        rows = _of_adaptation(problem, name, method, seen)
    named = {"setting": amount, "method": name, "seed": work.seed}
    write_long(
        paths.experiment(work.options["suite"], "unlabeled", f"{name}-{amount}", work.seed),
        MEASURED_IN_EXPERIMENT,
        [{**named, **row} for row in rows],
    )


def _of_adaptation(
    problem: HeldOut, name: str, method: AdaptMethod, seen: Mapping[str, slice]
) -> list[Row]:
    adaptation = problem.prepare(method)
    # on no image, the coefficients stay what they start with
    some = any(rows.stop for rows in seen.values())
    parameters = learned(problem.work, name, adaptation, seen) if some else adaptation.start()
    return problem.measure(adaptation, parameters)


def _of_rule(problem: HeldOut, method: RuleMethod, seen: Mapping[str, slice]) -> list[Row]:
    statistics = {kind: _collected(problem, kind, seen) for kind in method.needs}
    merged = make_model(method, problem.task_vectors, statistics)
    return measure(problem.encoder, merged, problem.heads, problem.measured)


def _collected(problem: HeldOut, kind: str, seen: Mapping[str, slice]) -> Mapping[str, StateDict]:
    """Collect a statistic of every fine-tuned model on the images that it may see."""
    work, found = problem.work, {}
    settings = work.params["experiments"]["unlabeled"]
    for number, (task, rows) in enumerate(seen.items(), start=1):
        vector = problem.task_vectors.select((task,))
        problem.encoder.load_state_dict(vector.merge(torch.ones(1)))
        found[task] = collect(
            kind,
            problem.encoder,
            problem.heads[task],
            problem.seen[task].images[rows],
            probes=settings.get("fisher_probes"),
            seed=work.seed,
            batch_size=work.params["compute"]["micro_batch"],
        )
        work.report.progress(number, len(seen), f"{kind} of {task}")
    return found


def _seen(counts: Mapping[str, int], amount: str) -> dict[str, slice]:
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
