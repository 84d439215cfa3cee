"""Heads: zero-shot ones of prompts, linear probes of a classifier's, and those that come with the
fine-tuned checkpoints of classifiers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.batches import take
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList, check_same_classes
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.linear_probes import features, fit_probe
from adamerge_core.vision.pinned_models import source_of
from adamerge_core.vision.task_heads import TaskHead, checkpoint_head, shared_head
from tasks.graph import paths
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_split, read_classes

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


def imported_head(dataset: str, entry: dict[str, str], architecture: str) -> StateDict:
    """Read the head of a dataset's checkpoint: weight [classes, D], bias [classes] (see _read)."""
    return _tensors(_read(dataset, entry, architecture))


def joined_head(
    entries: Mapping[str, dict[str, str]], architecture: str, *, average: bool
) -> StateDict:
    """Read the one head of several datasets' checkpoints, or their mean (see shared_head)."""
    heads = {task: _read(task, entry, architecture) for task, entry in entries.items()}
    return _tensors(shared_head(heads, average=average))


def _tensors(head: TaskHead) -> StateDict:
    tensors: dict[str, Any] = {"weight": head.weight, "bias": head.bias}
    return tensors


def _read(dataset: str, entry: dict[str, str], architecture: str) -> TaskHead:
    """Read a head.

    Raises InputError where it has none, one of another number of classes than the dataset, or says
    that they are others.
    """
    source = source_of(entry)
    tower = read_image_tower(source, architecture=architecture)
    if not tower.head:
        raise InputError(
            f"{source}: has no head; give the whole classifier that was fine-tuned on {dataset}"
        )
    names = tuple(read_classes(dataset)[0])
    if tower.classes:
        stated = {dataset: names, f"the checkpoint {source}": tower.classes.names}
        check_same_classes(stated, f"the head of {dataset}")
    return checkpoint_head(tower, ClassList(names, names, source=f"the data set {dataset}"))
