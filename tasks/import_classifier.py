"""import_classifier: the encoder of a pretrained classifier of timm or torchvision."""

import torch

from adamerge_core import checkpoints
from adamerge_core.vision.pinned_models import source_of
from adamerge_core.vision.pretrained import in_float32, read_pretrained
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.suite.sections import Model


def run(work: Work) -> None:
    """Write the pretrained encoder in the classifier's own names; its head is left out."""
    torch.set_num_threads(work.params["compute"]["threads"])
    section = work.section(Model)
    source = section.weights.get("package") or source_of(section.weights)
    tower = in_float32(read_pretrained(source, section.architecture))
    checkpoints.save(paths.pretrained(section.name), tower.tensors)
    for remark in tower.remarks:
        print(remark)
    print(f"{section.architecture}: {tower.format}, {len(tower.tensors)} tensors of the encoder")


if __name__ == "__main__":
    run_stage(run)
