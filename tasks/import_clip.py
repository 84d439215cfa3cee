"""import_clip: a whole pretrained CLIP of open_clip's, its image and its text tower."""

from pathlib import Path

import torch

from adamerge_core import checkpoints
from adamerge_core.vision.clip_weights import PretrainedWeights, create_pretrained_clip
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.suite.sections import Model


def run(work: Work) -> None:
    """Write the pretrained image encoder and the text tower, in open_clip's names."""
    torch.set_num_threads(work.params["compute"]["threads"])
    section = work.section(Model)
    given = dict(section.weights)
    file = given.pop("file", None)
    weights = PretrainedWeights(**given, file=Path(file) if file else None)  # type: ignore[arg-type]
    state = create_pretrained_clip(section.architecture, weights).state_dict()
    image = {n.removeprefix("visual."): t for n, t in state.items() if n.startswith("visual.")}
    text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    checkpoints.save(paths.pretrained(section.name), image)
    checkpoints.save(paths.text_tower(section.name), text)
    print(f"{section.architecture}: {len(image)} tensors of the image tower, {len(text)} beside it")


if __name__ == "__main__":
    run_stage(run)
