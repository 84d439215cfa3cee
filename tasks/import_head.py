"""import_head: the head that a task's checkpoint was trained against, in place of a rebuilt one."""

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.published_heads import read_head
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.encoders import read_classes


def run(work: Work) -> None:
    """Write `weight`, float32 [classes, D]. Raises InputError where it is none of as many
    classes as the data set has.
    """
    model, dataset = work.options["model"], work.options["dataset"]
    source = work.params["checkpoints"]["heads"][dataset]["file"]
    weight, bias, normalize = read_head(source)
    classes, _ = read_classes(dataset)
    faults = []
    if len(weight) != len(classes):
        faults.append(f"has {len(weight)} classes, and {dataset} has {len(classes)}")
    if bias.any() or not normalize:
        faults.append("is no zero-shot head, of normalised features and without a bias")
    if faults:
        faults.append("fix: give the head that was published with the checkpoint of this data set")
        raise InputError.listing(f"head {source}", faults)
    checkpoints.save(paths.head(model, dataset), {"weight": weight.float()})
    print(f"{dataset}: an imported head of {len(weight)} classes")


if __name__ == "__main__":
    run_stage(run)
