"""Linear heads of a classifier's tasks, fitted on the features of its pretrained encoder."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.vision.linear_probes import features, fit_probe
from tasks.graph import paths
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_split

_BATCH = 64


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
