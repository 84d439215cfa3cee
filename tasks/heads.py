"""heads: the zero-shot head of a dataset that the model's text tower was not trained on."""

import torch

from adamerge_core import checkpoints
from adamerge_core.vision.clip import create_clip, tokenizer
from adamerge_core.vision.heads import zero_shot_weight
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.dataset_classes import read_classes
from tasks.shared.device import set_up


def run(work: Work) -> None:
    """Write `weight`, float32 [classes, D], times exp(logit_scale)."""
    model, dataset = work.options["model"], work.options["dataset"]
    architecture = work.params["model"]["architecture"]
    device = set_up(work.params["compute"])
    torch.manual_seed(0)
    clip = create_clip(architecture).to(device)
    text_tower = checkpoints.load(paths.text_tower(model))
    wanted = {name: t for name, t in clip.state_dict().items() if not name.startswith("visual.")}
    checkpoints.check_same_architecture(wanted, {str(paths.text_tower(model)): text_tower})
    clip.load_state_dict(text_tower, strict=False)  # the image tower takes no part
    clip.eval()
    weight = zero_shot_weight(clip, tokenizer(architecture), *read_classes(dataset))
    checkpoints.save(paths.head(model, dataset), {"weight": weight})
    print(f"{dataset}: a head of {len(weight)} classes")


if __name__ == "__main__":
    run_stage(run)
