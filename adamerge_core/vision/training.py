"""Training that makes what is merged: the text tower, fine-tuned and jointly trained encoders."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from open_clip.model import CLIP
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.batches import batch_indices, take
from adamerge_core.vision.images import LabeledImages


@dataclass(frozen=True)
class TrainingSettings:
    """AdamW with a linear warm-up and a cosine to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    """At its highest."""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    gradient_clip: float = math.inf
    """Greatest L2 norm of the whole gradient."""

    def learning_rate_at(self, step: int) -> float:
        """Of step `step`, from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class TrainingStep:
    """What one step did."""

    step: int
    """Counts from 1."""
    loss: float
    learning_rate: float


def finetune(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    data: Mapping[str, LabeledImages],
    settings: TrainingSettings,
    seed: int,
    resume_from: Path | None = None,
    save_every: int = 20,
) -> Iterator[TrainingStep]:
    """Train the encoder's parameters under frozen heads; yields every step.

    With one task this is fine-tuning, with several traditional multi-task learning: the batch is
    drawn from the union of the training sets, each image classified by its own task's head, and the
    loss is the mean cross-entropy. resume_from works as in `adapt`.
    """
    tasks = list(data)
    owner = np.concatenate([np.full(len(data[n].labels), i) for i, n in enumerate(tasks)])
    within = np.concatenate([np.arange(len(data[name].labels)) for name in tasks])

    def loss_of(step: int) -> Tensor:
        drawn = batch_indices(len(owner), settings.batch_size, step, (seed,))
        parts = {t: within[drawn[owner[drawn] == i]] for i, t in enumerate(tasks)}
        parts = {name: np.sort(rows) for name, rows in parts.items() if len(rows)}
        images = torch.cat([take(data[name].images, rows) for name, rows in parts.items()])
        features = encoder(images).split([len(rows) for rows in parts.values()])
        losses = [
            F.cross_entropy(heads[name](part), _labels(data[name], rows, part), reduction="sum")
            for (name, rows), part in zip(parts.items(), features, strict=True)
        ]
        return torch.stack(losses).sum() / len(drawn)

    yield from _train(dict(encoder.named_parameters()), loss_of, settings, resume_from, save_every)


def _labels(data: LabeledImages, rows: np.ndarray, features: Tensor) -> Tensor:
    return torch.as_tensor(data.labels[rows]).to(features.device)


def tune_text_tower(
    clip: CLIP,
    image_features: Tensor,
    captions: Tensor,
    settings: TrainingSettings,
    seed: int,
) -> Iterator[TrainingStep]:
    """Locked-image tuning (arXiv 2111.07991): train text tower and projection, image tower locked.

    image_features: [N, width] pooled features before the projection, float32.
    captions: [N, prompts, context length] int64, the same for images of one class. Every step draws
    images and for each one of its prompts; captions that are equal within the step count as one, so
    that an image has exactly one right answer. Token embeddings stay as they are: a few hundred of
    49,408 tokens occur, and the random ones tell them apart.
    """
    locked = ("visual.trunk", "token_embedding")
    trained = {n: p for n, p in clip.named_parameters() if not n.startswith(locked)}

    def loss_of(step: int) -> Tensor:
        drawn = batch_indices(len(image_features), settings.batch_size, step, (seed,))
        prompt = np.random.default_rng([seed, step]).integers(captions.shape[1])
        texts, targets = torch.unique(captions[drawn, prompt], dim=0, return_inverse=True)
        images = F.normalize(clip.visual.head(image_features[drawn]), dim=-1)
        logits = clip.logit_scale.exp() * images @ clip.encode_text(texts, normalize=True).T
        return F.cross_entropy(logits, targets)

    yield from _train(trained, loss_of, settings, None, settings.steps)


def _train(
    parameters: Mapping[str, nn.Parameter],
    loss_of: Callable[[int], Tensor],
    settings: TrainingSettings,
    resume_from: Path | None,
    save_every: int,
) -> Iterator[TrainingStep]:
    values: Sequence[nn.Parameter] = list(parameters.values())
    optimizer = torch.optim.AdamW(
        values, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    done = 0
    if resume_from and resume_from.exists():
        done = _load_state(resume_from, parameters, optimizer)
    for step in range(done, settings.steps):
        rate = optimizer.param_groups[0]["lr"] = settings.learning_rate_at(step)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(values, settings.gradient_clip)
        optimizer.step()
        yield TrainingStep(step + 1, loss.item(), rate)
        if resume_from and (step + 1) % save_every == 0 and step + 1 < settings.steps:
            _save_state(resume_from, step + 1, parameters, optimizer)


def _save_state(
    path: Path, step: int, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> None:
    tensors: dict[str, Tensor] = {f"parameter/{name}": p for name, p in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
    checkpoints.save(path, tensors, {"step": str(step)})


def _load_state(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> int:
    tensors = checkpoints.load(path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in keys}
    return int(checkpoints.read_metadata(path)["step"])
