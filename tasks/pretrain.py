"""pretrain: the text tower of a model, by locked-image tuning, and the heads that it gives."""

import json
from collections.abc import Mapping

import torch
from open_clip.model import CLIP
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.batches import take
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling, tokenizer
from adamerge_core.vision.heads import ZeroShotHead, zero_shot_weight
from adamerge_core.vision.imagenet import load_efficientnet_lite0
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import TrainingSettings, tune_text_tower
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import open_split
from tasks.shared.tables import write_csv
from tasks.suite.sections import Pretrain

_FEATURE_BATCH = 100


def run(work: Work) -> None:
    """Write the pretrained image encoder, the text tower, the loss curve, accuracies, and the
    zero-shot heads of the datasets that it learned from.
    """
    settings, device = work.section(Pretrain), set_up(work.params["compute"])
    model, architecture = work.options["model"], work.params["model"]["architecture"]
    torch.manual_seed(settings.seed)
    clip = create_clip(architecture)
    encoder = image_encoder(clip, pixel_scaling(architecture))
    load_efficientnet_lite0(encoder.trunk)  # type: ignore[arg-type]
    clip.to(device)
    names = {name: json.loads(paths.classes(name).read_text()) for name in settings.datasets}
    data = open_split(settings.datasets, work.options["size"], "pretrain")
    write_csv(paths.pretrain_curve(model), _train(clip, architecture, settings, names, data, work))
    clip.eval()
    text_tower = {n: t for n, t in clip.state_dict().items() if not n.startswith("visual.")}
    checkpoints.save(paths.pretrained(model), encoder.state_dict())
    checkpoints.save(paths.text_tower(model), text_tower)
    tokenize = tokenizer(architecture)
    weights = {
        name: zero_shot_weight(clip, tokenize, text["classes"], text["templates"])
        for name, text in names.items()
    }
    own = {} if work.params.get("head") else weights  # a shared one is made by its stage
    for name, weight in own.items():
        checkpoints.save(paths.head(model, name), {"weight": weight})
    heads = {name: ZeroShotHead(weight) for name, weight in weights.items()}
    measured = accuracy(encoder, heads, data)
    rows = [
        {"task": name, "metric": "pretraining accuracy", "value": measured[name]} for name in names
    ]
    write_csv(paths.pretrain_accuracy(model), rows)


def _train(
    clip: CLIP,
    architecture: str,
    section: Pretrain,
    names: Mapping[str, Mapping[str, list[str]]],
    data: Mapping[str, LabeledImages],
    work: Work,
) -> list[dict[str, object]]:
    features = torch.cat([_pooled_features(clip, part) for part in data.values()])
    captions = _captions(architecture, names, data).to(features.device)
    settings = TrainingSettings(
        steps=section.steps,
        batch_size=section.captions_per_step,
        learning_rate=section.learning_rate,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
    )
    rows: list[dict[str, object]] = []
    for step in tune_text_tower(clip, features, captions, settings, section.seed):
        rows.append({"step": step.step, "loss": step.loss})
        work.report.metrics({"loss": step.loss}, step.step)
        work.report.progress(step.step, settings.steps, f"text tower  loss {step.loss:.3f}")
    return rows


@torch.no_grad()
def _pooled_features(clip: CLIP, part: LabeledImages) -> Tensor:
    """[N, width] float32: what the locked trunk gives, before the projection."""
    head, clip.visual.head = clip.visual.head, torch.nn.Identity()
    try:
        starts = range(0, len(part.images), _FEATURE_BATCH)
        device = clip.logit_scale.device
        batches = (take(part.images, slice(start, start + _FEATURE_BATCH)) for start in starts)
        return torch.cat([clip.visual(batch.to(device)) for batch in batches])
    finally:
        clip.visual.head = head


def _captions(
    architecture: str,
    names: Mapping[str, Mapping[str, list[str]]],
    data: Mapping[str, LabeledImages],
) -> Tensor:
    """[N, prompts, context length] int64: every image's class in every template of its task.

    Tasks with fewer templates than others repeat theirs.
    """
    tokenize = tokenizer(architecture)
    prompts = max(len(text["templates"]) for text in names.values())
    rows = []
    for name, part in data.items():
        templates = names[name]["templates"]
        chosen = [templates[index % len(templates)] for index in range(prompts)]
        by_class = torch.stack(
            [tokenize([t.format(label) for t in chosen]) for label in names[name]["classes"]]
        )
        rows.append(by_class[torch.tensor(part.labels)])
    return torch.cat(rows)


if __name__ == "__main__":
    run_stage(run)
