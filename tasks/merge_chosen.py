"""merge_chosen: one merged model by a rule, at the best of several values of a parameter.

Apart from merge, which neither runs the image encoder nor depends on its code.
"""

from dataclasses import dataclass

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.vision.choice import Judge
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.choice import choose
from tasks.shared.device import set_up
from tasks.shared.encoders import open_encoder, open_heads, open_split
from tasks.shared.methods import make_model
from tasks.shared.tables import write_csv
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.methods import RuleMethod, parse_as


@dataclass(frozen=True)
class _Merged:
    model: StateDict


def run(work: Work) -> None:
    """Write the merged model, and what the criterion gave for each value."""
    suite, name, model = (work.options[key] for key in ("suite", "method", "model"))
    tasks, method = work.params["tasks"], parse_as(RuleMethod, name, work.params["methods"])
    assert method.choose is not None
    device = set_up(work.params["compute"])
    task_vectors = open_task_vectors(model, tasks, work.seed).to(device)
    statistics = open_statistics(model, method.needs, tasks, work.seed, device)
    encoder = open_encoder(work.params["model"], device)
    heads = open_heads(model, tasks, device)
    images = open_split(tasks, work.options["size"], "val")
    judge = Judge.prepare(method.choose.by, encoder, task_vectors, heads, images)
    choice = choose(
        method.choose,
        judge,
        lambda _, value: _Merged(make_model(method.with_value(value), task_vectors, statistics)),
        work.report,
    )
    write_csv(paths.choice(suite, name, work.seed), choice.rows)
    checkpoints.save(paths.merged(suite, name, work.seed), choice.best.model)
    print(f"{name}: merged {len(tasks)} task vectors")


if __name__ == "__main__":
    run_stage(run)
