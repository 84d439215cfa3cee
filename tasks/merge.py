"""merge: one merged model by a rule, perhaps at the best of several values of a parameter."""

from dataclasses import dataclass

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import Statistics, open_statistics, open_task_vectors
from tasks.suite.method_entries import Choose
from tasks.suite.methods import RuleMethod, parse_as


@dataclass(frozen=True)
class _Merged:
    model: StateDict


def run(work: Work) -> None:
    """Write the merged model; with `choose` also what the criterion gave for each value."""
    suite, name, model = (work.options[key] for key in ("suite", "method", "model"))
    tasks, method = work.params["tasks"], parse_as(RuleMethod, name, work.params["methods"])
    device = set_up(work.params["compute"])
    task_vectors = open_task_vectors(model, tasks, work.seed).to(device)
    statistics = open_statistics(model, method.needs, tasks, work.seed, device)
    if method.choose:
        merged = _choose(work, method, method.choose, task_vectors, statistics)
    else:
        merged = make_model(method, task_vectors, statistics)
    checkpoints.save(paths.merged(suite, name, work.seed), merged)
    print(f"{name}: merged {len(tasks)} task vectors")


def _choose(
    work: Work,
    method: RuleMethod,
    options: Choose,
    task_vectors: TaskVectors,
    statistics: Statistics,
) -> StateDict:
    # the image encoder takes seconds to import, and no other merge needs it
    from tasks.shared.choice import Judge, choose
    from tasks.shared.encoders import open_encoder, open_heads, open_split
    from tasks.shared.tables import write_csv

    tasks, names, device = work.params["tasks"], work.options, set_up(work.params["compute"])
    encoder = open_encoder(work.params["model"]["architecture"], device)
    heads = open_heads(names["model"], tasks, device)
    images = open_split(tasks, names["size"], "val")
    judge = Judge.prepare(options.by, encoder, task_vectors, heads, images)
    choice = choose(
        options,
        judge,
        lambda _, value: _Merged(make_model(method.with_value(value), task_vectors, statistics)),
        work.report,
    )
    write_csv(paths.choice(names["suite"], names["method"], work.seed), choice.rows)
    return choice.best.model


if __name__ == "__main__":
    run_stage(run)
