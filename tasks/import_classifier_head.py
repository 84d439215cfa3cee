"""import_classifier_head: the head of a task, out of its fine-tuned classifier."""

from adamerge_core import checkpoints
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.heads import imported_head


def run(work: Work) -> None:
    """Write `weight` [classes, D] and `bias` [classes], float32."""
    model, dataset = work.options["model"], work.options["dataset"]
    entry = work.params["checkpoints"]["finetuned"][dataset]
    head = imported_head(dataset, entry, work.params["model"]["architecture"])
    checkpoints.save(paths.head(model, dataset), head)
    print(f"{dataset}: an imported head of {len(head['weight'])} classes")


if __name__ == "__main__":
    run_stage(run)
