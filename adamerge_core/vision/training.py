"""Training of CLIP: the text tower, and encoders fine-tuned on one task or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adamerge_core import state_files
from adamerge_core.batches import batch_indices, take
from adamerge_core.errors import InputError
from adamerge_core.parameters import count_faults, number_faults
from adamerge_core.state_files import State
from adamerge_core.vision.images import LabeledImages

if TYPE_CHECKING:
    from open_clip.model import CLIP


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of AdamW with a linear warm-up and a cosine to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    """The learning rate at its highest."""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    gradient_clip: float = math.inf
    """The greatest L2 norm of the whole gradient; a longer one is scaled down to it."""

    def faults(self) -> list[str]:
        """What is wrong with these settings, a line each."""
        faults = count_faults("warmup_steps", self.warmup_steps, least=0)
        for name in ("steps", "batch_size"):
            faults += count_faults(name, getattr(self, name))
        ranges: dict[str, tuple[str, Callable[[float], bool]]] = {  # written so that NaN fails
            "learning_rate": ("above 0 and finite", lambda rate: 0 < rate < math.inf),
            "weight_decay": ("at least 0 and finite", lambda decay: 0 <= decay < math.inf),
            "gradient_clip": ("above 0; infinity does not clip", lambda norm: norm > 0),
        }
        for name, (rule, holds) in ranges.items():
            faults += number_faults(name, getattr(self, name), rule, holds)
        return faults

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class TrainingStep:
    """One step of the training."""

    step: int
    """The step's number, from 1."""
    loss: float
    """The mean cross-entropy of the step's batch, before the update."""
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
    loss is the mean cross-entropy.
    resume_from: a file that keeps the state, written every `save_every` steps once the caller has
    taken the step; when it exists, the run goes on from it and ends at the same weights as one
    never interrupted. The steps before it are not yielded again. Raises StateFileError when the
    file is damaged or another run's, InputError for settings, data or heads with faults, all
    listed, and when the loss is not finite.
    """
    faults = settings.faults() + count_faults("seed", seed, least=0)
    faults += count_faults("save_every", save_every)
    faults += [
        f"no head of task {name}: give one for each of data" for name in data if name not in heads
    ]
    faults += [f"data of task {name}: no image" for name in data if not len(data[name].labels)]
    if not data:
        faults.append("data = {}: give the images of one task or more")
    if faults:
        raise InputError.listing("fine-tuning", faults)
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

    images = {name: len(part.labels) for name, part in data.items()}
    run = {**asdict(settings), "seed": seed, "images": images}
    parameters = dict(encoder.named_parameters())
    yield from _train(parameters, loss_of, settings, run, resume_from, save_every)


def _labels(data: LabeledImages, rows: np.ndarray, features: Tensor) -> Tensor:
    return torch.as_tensor(data.labels[rows]).to(features.device)


def tune_text_tower(
    clip: CLIP,
    image_features: Tensor,
    captions: Tensor,
    settings: TrainingSettings,
    seed: int,
) -> Iterator[TrainingStep]:
    """Train text tower and projection with the image tower locked (LiT, arXiv 2111.07991).

    image_features: [N, width] pooled features before the projection, float32.
    captions: [N, prompts, context length] int64, the same for images of one class. Every step draws
    images and for each one of its prompts; captions that are equal within the step count as one, so
    that an image has exactly one right answer. Token embeddings stay as they are: a few hundred of
    49,408 tokens occur, and the random ones tell them apart. Raises InputError for settings with
    faults, all listed, and when the loss is not finite.
    """
    if faults := settings.faults():
        raise InputError.listing("training of the text tower", faults)
    locked = ("visual.trunk", "token_embedding")
    trained = {n: p for n, p in clip.named_parameters() if not n.startswith(locked)}

    def loss_of(step: int) -> Tensor:
        drawn = batch_indices(len(image_features), settings.batch_size, step, (seed,))
        prompt = np.random.default_rng([seed, step]).integers(captions.shape[1])
        texts, targets = torch.unique(captions[drawn, prompt], dim=0, return_inverse=True)
        images = F.normalize(clip.visual.head(image_features[drawn]), dim=-1)
        logits = clip.logit_scale.exp() * images @ clip.encode_text(texts, normalize=True).T
        return F.cross_entropy(logits, targets)

    yield from _train(trained, loss_of, settings)


def _train(
    parameters: Mapping[str, nn.Parameter],
    loss_of: Callable[[int], Tensor],
    settings: TrainingSettings,
    run: Mapping[str, Any] | None = None,
    resume_from: Path | None = None,
    save_every: int = 20,
) -> Iterator[TrainingStep]:
    """Train by AdamW; run: a description, as JSON, that tells its state file from others'."""
    values: Sequence[nn.Parameter] = list(parameters.values())
    optimizer = torch.optim.AdamW(
        values, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    done = 0
    if resume_from and resume_from.exists():
        done = _load_state(resume_from, run or {}, parameters, optimizer, settings.steps - 1)
    for step in range(done, settings.steps):
        rate = optimizer.param_groups[0]["lr"] = settings.learning_rate_at(step)
        loss = loss_of(step)
        if not math.isfinite(value := loss.item()):
            raise InputError(
                f"training, step {step + 1}: the loss is {value} at a learning rate of {rate:g}; "
                "lower it, or look for images, heads and weights that are not finite"
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(values, settings.gradient_clip)
        optimizer.step()
        yield TrainingStep(step + 1, value, rate)
        if resume_from and (step + 1) % save_every == 0 and step + 1 < settings.steps:
            _save_state(resume_from, run or {}, step + 1, parameters, optimizer)


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""The state that AdamW keeps of each parameter."""


def _save_state(
    path: Path,
    run: Mapping[str, Any],
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
) -> None:
    tensors: dict[str, Tensor] = {f"parameter/{name}": p for name, p in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{key}/{name}": optimizer.state[parameter][key] for key in _MOMENTS}
    state_files.save(path, State(dict(run), step, tensors, {}))


def _load_state(
    path: Path,
    run: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    most: int,
) -> int:
    """Put a saved state into the model; gives the steps done. Raises StateFileError."""
    layout: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        layout |= {f"{key}/{name}": parameter for key in ("parameter", *_MOMENTS)}
        layout[f"step/{name}"] = torch.empty((), dtype=torch.float32, device="meta")
    state = state_files.load(path, run, layout, most)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state.tensors[f"parameter/{name}"])
    moments = {
        index: {key: state.tensors[f"{key}/{name}"] for key in _MOMENTS}
        for index, name in enumerate(parameters)
    }
    # it moves them to the device of their parameters
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return state.step
