"""unlabeled: what an adaptation reaches that sees few images (arXiv 2310.02575, section 4).

It sees the first images that the held-out protocol adapts on, and is measured on the others.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.measuring import measure
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, statistics_of, vectors_of
from tasks.graph.paths import PROTOCOLS
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.adaptation import Adaptation
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.experiments.unlabeled import Unlabeled
from tasks.suite.methods import AdaptMethod, parse_as

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

AMOUNT, _HELD_OUT = "${item.amount}", PROTOCOLS[1]


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each method, of a stage an amount and seed."""
    settings = Unlabeled.of(suite.raw)
    named = {"suite": SUITE, "model": suite.model.name, "size": str(suite.size)}
    return [
        template(
            f"unlabeled_{name}",
            "tasks.experiments.unlabeled",
            {**named, "method": name, "amount": AMOUNT, "seed": SEED},
            matrix=axes(suite=suite.name, amount=settings.amounts, seed=suite.seeds),
            deps=[
                *vectors_of(suite, suite.tasks),
                *statistics_of(suite, method, suite.tasks),
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
    suite, model, name = (work.options[key] for key in ("suite", "model", "method"))
    tasks, amount = work.params["tasks"], work.options["amount"]
    method = parse_as(AdaptMethod, name, work.params["experiments"]["unlabeled"]["methods"])
    device = set_up(work.params["compute"])
    encoder, heads = open_encoder(work.params["model"], device), open_heads(model, tasks, device)
    test = open_split(tasks, work.options["size"], "test")
    share = work.params["evaluate"]["held_out_fraction"]
    counts = {n: adapted_rows(len(p.labels), _HELD_OUT, share).stop for n, p in test.items()}
    seen = _seen(counts, amount)
    statistics = open_statistics(model, method.needs, tasks, work.seed, device)
    vectors = open_task_vectors(model, tasks, work.seed).to(device)
    adaptation = Adaptation.prepare(method, encoder, vectors, heads, test, work.params["compute"])
    learned = _learned(work, adaptation, seen)
    measured = {
        task: LabeledImages(part.images[rows], part.labels[rows])
        for task, part in test.items()
        for rows in [measured_rows(len(part.labels), _HELD_OUT, share)]
    }
    named = {"setting": amount, "method": name, "seed": work.seed}
    merged = adaptation.model(learned, statistics)
    rows = [{**named, **row} for row in measure(encoder, merged, heads, measured)]
    write_long(
        paths.experiment(suite, "unlabeled", f"{name}-{amount}", work.seed),
        MEASURED_IN_EXPERIMENT,
        rows,
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


def _learned(work: Work, adaptation: Adaptation, seen: dict[str, slice]) -> Tensor:
    """Learn on the images seen; on none, the coefficients stay what they start with."""
    learned, scratch = adaptation.start(), work.report.scratch
    if not any(rows.stop for rows in seen.values()):
        return learned
    state = scratch / "adaptation.safetensors" if scratch else None
    for step in adaptation.steps(work.seed, state, seen):
        learned, entropy = step.coefficients, sum(step.entropy.values()) / len(seen)
        work.report.metrics({"entropy": entropy}, step.step)
        text = f"{work.name}  entropy {entropy:.3f}"
        work.report.progress(step.step, adaptation.settings.steps, text)
    return learned


if __name__ == "__main__":
    run_stage(run)
