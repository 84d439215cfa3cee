"""import_finetuned: the fine-tuned image encoder of a task, from anyone's checkpoint."""

import torch

from adamerge_core import checkpoints
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.pinned_models import source_of
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.suite.sections import Model


def run(work: Work) -> None:
    """Write the image encoder in open_clip's names, with the content hash of what was read."""
    torch.set_num_threads(work.params["compute"]["threads"])
    section, dataset = work.section(Model), work.options["dataset"]
    pretrained = checkpoints.load(paths.pretrained(section.name))
    entry = work.params["checkpoints"]["finetuned"][dataset]
    tower = read_image_tower(source_of(entry), pretrained, architecture=section.architecture)
    for remark in tower.remarks:
        print(f"{dataset}: {remark}")
    print(f"{dataset}: {tower.format}, sha256 {tower.sha256}")
    checkpoints.save(
        paths.finetuned(section.name, dataset, work.seed),
        tower.tensors,
        metadata={"source": tower.source, "sha256": tower.sha256},
    )


if __name__ == "__main__":
    run_stage(run)
