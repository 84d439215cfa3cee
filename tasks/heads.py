"""heads: the zero-shot head of a dataset that the model's text tower was not trained on."""

from adamerge_core import checkpoints
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.encoders import read_classes
from tasks.shared.heads import prompted_head


def run(work: Work) -> None:
    """Write `weight`, float32 [classes, D], times exp(logit_scale)."""
    model, dataset = work.options["model"], work.options["dataset"]
    head = prompted_head(work, *read_classes(dataset))
    checkpoints.save(paths.head(model, dataset), head)
    print(f"{dataset}: a head of {len(head['weight'])} classes")


if __name__ == "__main__":
    run_stage(run)
