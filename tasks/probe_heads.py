"""probe_heads: the head of a classifier's task, a linear probe on the pretrained encoder."""

from adamerge_core import checkpoints
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.encoders import read_classes
from tasks.shared.heads import probed_head


def run(work: Work) -> None:
    """Write `weight` [classes, D] and `bias` [classes], float32."""
    dataset = work.options["dataset"]
    classes, _ = read_classes(dataset)
    head = probed_head(work, [dataset], len(classes))
    checkpoints.save(paths.head(work.options["model"], dataset), head)
    print(f"{dataset}: a linear head of {len(classes)} classes")


if __name__ == "__main__":
    run_stage(run)
