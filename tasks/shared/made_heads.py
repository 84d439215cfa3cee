"""Heads that are made here: zero-shot ones of prompts, and linear probes of a classifier's."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.vision.linear_probes import features, fit_probe
from tasks.graph import paths
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_split

_BATCH = 64


def prompted_head(work: Work, classes: Sequence[str], templates: Sequence[str]) -> StateDict:
    """Make the zero-shot head of class names and prompts: weight [classes, D], with the scale."""
    # takes seconds to import
    from adamerge_core.vision.clip import create_clip, tokenizer
    from adamerge_core.vision.heads import zero_shot_weight

    model, architecture = work.options["model"], work.params["model"]["architecture"]
    device = set_up(work.params["compute"])
    torch.manual_seed(0)
    clip = create_clip(architecture).to(device)
    text_tower = checkpoints.load(paths.text_tower(model))
    wanted = {name: t for name, t in clip.state_dict().items() if not name.startswith("visual.")}
    checkpoints.check_same_architecture(wanted, {str(paths.text_tower(model)): text_tower})
    clip.load_state_dict(text_tower, strict=False)  # the image tower takes no part
    clip.eval()
    return {"weight": zero_shot_weight(clip, tokenizer(architecture), classes, templates)}


def probed_head(work: Work, datasets: Sequence[str], classes: int) -> StateDict:
    """Fit one head on the training images of datasets: weight [classes, D], bias [classes]."""
    model, size, report = work.options["model"], work.options["size"], work.report
    device = set_up(work.params["compute"])
    encoder = open_encoder(work.params["model"], device)
    load_weights(encoder, paths.pretrained(model))
    data = open_split(datasets, size, "train")
    total = sum(len(part.labels) for part in data.values())

    def batches() -> Iterator[Tensor]:
        done = 0
        for name, part in data.items():
            for start in range(0, len(part.labels), _BATCH):
                stop = min(start + _BATCH, len(part.labels))
                yield take(part.images, slice(start, stop)).to(device)
                report.progress(done + stop, total, f"features of {name}")
            done += len(part.labels)

    found = features(encoder, batches())
    labels = torch.cat([take(part.labels, slice(None)) for part in data.values()])
    weight, bias = fit_probe(found, labels, classes)
    return {"weight": weight, "bias": bias}
