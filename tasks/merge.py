"""merge: one merged model by a rule."""

from adamerge_core import checkpoints
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import open_statistics, open_task_vectors
from tasks.suite.methods import RuleMethod, parse_as


def run(work: Work) -> None:
    """Write the merged model."""
    suite, name, model = (work.options[key] for key in ("suite", "method", "model"))
    tasks, method = work.params["tasks"], parse_as(RuleMethod, name, work.params["methods"])
    device = set_up(work.params["compute"])
    task_vectors = open_task_vectors(model, tasks, work.seed).to(device)
    statistics = open_statistics(model, method.needs, tasks, work.seed, device)
    merged = make_model(method, task_vectors, statistics)
    checkpoints.save(paths.merged(suite, name, work.seed), merged)
    print(f"{name}: merged {len(tasks)} task vectors")


if __name__ == "__main__":
    run_stage(run)
