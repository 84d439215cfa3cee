"""pretrain: the text tower and the zero-shot heads, by locked-image tuning."""

import json
from collections.abc import Mapping

import torch
from open_clip.model import CLIP
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.batches import take
from adamerge_core.vision.encoders import create_clip, image_encoder, tokenizer
from adamerge_core.vision.heads import ZeroShotHead, zero_shot_weight
from adamerge_core.vision.imagenet import load_efficientnet_lite0
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import TrainingSettings, tune_text_tower
from tasks.graph.paths import Files
from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import accuracy, open_split
from tasks.shared.tables import write_csv, write_json
from tasks.shared.task_vectors import set_up
from tasks.suite.schema import Suite, load_params

_FEATURE_BATCH = 100


def run(suite: Suite, report: Reporter) -> None:
    """Write the pretrained image encoder, the text tower, the heads, the loss curve and metrics."""
    device = set_up(suite.compute)
    files, architecture = Files(suite.name), suite.model.architecture
    torch.manual_seed(suite.pretrain.seed)
    clip = create_clip(architecture)
    encoder = image_encoder(clip, architecture)
    load_efficientnet_lite0(encoder.trunk)  # type: ignore[arg-type]
    clip.to(device)
    names = {name: json.loads(files.classes(name).read_text()) for name in suite.task_names}
    data = open_split(files, suite.task_names, "pretrain")
    write_csv(files.pretrain_curve(), _train(clip, suite, names, data, report))

    tokenize = tokenizer(architecture)
    clip.eval()
    weights = {
        name: zero_shot_weight(clip, tokenize, text["classes"], text["templates"])
        for name, text in names.items()
    }
    text_tower = {n: t for n, t in clip.state_dict().items() if not n.startswith("visual.")}
    checkpoints.save(files.pretrained, encoder.state_dict())
    checkpoints.save(files.text_tower, text_tower)
    checkpoints.save(files.heads, weights)
    heads = {name: ZeroShotHead(weight) for name, weight in weights.items()}
    write_json(files.pretrain_metrics(), {"pretraining accuracy": accuracy(encoder, heads, data)})


def _train(
    clip: CLIP,
    suite: Suite,
    names: Mapping[str, Mapping[str, list[str]]],
    data: Mapping[str, LabeledImages],
    report: Reporter,
) -> list[dict[str, object]]:
    features = torch.cat([_pooled_features(clip, part) for part in data.values()])
    captions = _captions(suite.model.architecture, names, data).to(features.device)
    settings = TrainingSettings(
        steps=suite.pretrain.steps,
        batch_size=suite.pretrain.captions_per_step,
        learning_rate=suite.pretrain.learning_rate,
        warmup_steps=suite.pretrain.warmup_steps,
        weight_decay=suite.pretrain.weight_decay,
    )
    rows: list[dict[str, object]] = []
    for step in tune_text_tower(clip, features, captions, settings, suite.pretrain.seed):
        rows.append({"step": step.step, "loss": step.loss})
        report.metrics({"loss": step.loss}, step.step)
        report.progress(step.step, settings.steps, f"text tower  loss {step.loss:.3f}")
    return rows


@torch.no_grad()
def _pooled_features(clip: CLIP, part: LabeledImages) -> Tensor:
    """[N, width] float32: what the locked trunk gives, before the projection."""
    head, clip.visual.head = clip.visual.head, torch.nn.Identity()
    try:
        starts = range(0, len(part.images), _FEATURE_BATCH)
        batches = [take(part.images, slice(start, start + _FEATURE_BATCH)) for start in starts]
        return torch.cat([clip.visual(batch) for batch in batches])
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


def main() -> None:
    run_stage("pretrain", lambda report: run(load_params(), report))


if __name__ == "__main__":
    main()
