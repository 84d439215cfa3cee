"""import_clip: a whole pretrained CLIP of open_clip's, its image and its text tower."""

from pathlib import Path
from typing import Any

import torch

from adamerge_core import checkpoints
from adamerge_core.vision.clip_weights import (
    PretrainedWeights,
    create_pretrained_clip,
    tag_on_hub,
)
from adamerge_core.vision.datasets.hub_files import tag_pin
from adamerge_core.vision.pinned_models import pinned_file
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.suite.sections import Model


def run(work: Work) -> None:
    """Write the pretrained image encoder and the text tower, in open_clip's names."""
    torch.set_num_threads(work.params["compute"]["threads"])
    section = work.section(Model)
    state = create_pretrained_clip(section.architecture, _weights(section)).state_dict()
    image = {n.removeprefix("visual."): t for n, t in state.items() if n.startswith("visual.")}
    text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    checkpoints.save(paths.pretrained(section.name), image)
    checkpoints.save(paths.text_tower(section.name), text)
    print(f"{section.architecture}: {len(image)} tensors of the image tower, {len(text)} beside it")


def _weights(section: Model) -> PretrainedWeights:
    """Name the user's file, or the pinned file of a tag."""
    given = section.weights
    if "file" in given:
        activation: Any = given["activation"]
        return PretrainedWeights(file=Path(given["file"]), activation=activation)
    file = pinned_file(tag_pin(section.architecture, given["tag"]))
    activation = tag_on_hub(section.architecture, given["tag"]).activation
    return PretrainedWeights(file=file, activation=activation)


if __name__ == "__main__":
    run_stage(run)
