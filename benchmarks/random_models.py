"""Random problems of the sizes that benchmarks measure: tower, task vectors, heads, images."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adamerge_core.task_vectors import TaskVectors

IMAGE_SIZE = {"tiny": 8, "mini": 64, "ViT-B-32": 224, "ViT-L-14": 224}
"""Pixels a side by model. mini is the tower of the mini suite; tiny is for tests."""

CLASSES = {
    "SUN397": 397,
    "Cars": 196,
    "RESISC45": 45,
    "EuroSAT": 10,
    "SVHN": 10,
    "GTSRB": 43,
    "MNIST": 10,
    "DTD": 47,
}
"""The paper's tasks and their numbers of classes."""

DISTANCE = 3e-4
"""Spread of the task vectors' entries: small beside the weights, so that the merged tower works."""

LOGIT_SCALE = 100.0
"""CLIP's at the end of its training."""


class TinyTower(nn.Module):
    """Two linear layers: uint8 [N, 8, 8, 3] -> [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * IMAGE_SIZE["tiny"] ** 2, 32)
        self.projection = nn.Linear(32, 16)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1).to(self.hidden.weight) / 255
        return self.projection(F.gelu(self.hidden(pixels)))


class RandomHead(nn.Module):
    """A frozen linear head over normalised features, as zero-shot heads are."""

    weight: Tensor

    def __init__(self, classes: int, like: Tensor) -> None:
        """like: features [N, D]; gives D, dtype and device."""
        super().__init__()
        rows = F.normalize(torch.randn(classes, like.shape[1]), dim=1) * LOGIT_SCALE
        self.register_buffer("weight", rows.to(like))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features, dim=-1), self.weight)


class RandomLayers(Mapping[str, Tensor]):
    """Task vectors [K, *shape] of some tensors, drawn at each access."""

    def __init__(self, tensors: Mapping[str, Tensor], tasks: int) -> None:
        self._tensors, self._tasks = tensors, tasks

    def __getitem__(self, name: str) -> Tensor:
        like = self._tensors[name]
        drawn = torch.randn(self._tasks, *like.shape, dtype=like.dtype)
        return drawn.mul_(DISTANCE).to(like.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True)
class Problem:
    """What a step of adaptation works on, beside the task vectors."""

    encoder: nn.Module
    """uint8 [N, H, W, 3] -> features [N, D]; random weights, in evaluation mode."""
    heads: dict[str, nn.Module]
    images: dict[str, Tensor]
    """Per task uint8 [n, H, W, 3], as many for each, on the host."""

    def task_vectors(self, clone: bool) -> TaskVectors:
        """Random ones, of every parameter.

        clone: whether the pretrained tensors are copies; else they are the encoder's own.
        """
        vectors = self._drawn(clone)
        return TaskVectors(vectors.pretrained, vectors.task_names, dict(vectors.layers))

    def stored_task_vectors(self, folder: Path) -> TaskVectors:
        """The same, written to `folder` and left there."""
        vectors = self._drawn(clone=True)
        paths = {name: folder / f"{name}.safetensors" for name in vectors.task_names}
        vectors.save(paths)
        return TaskVectors.open(vectors.pretrained, paths)

    def _drawn(self, clone: bool) -> TaskVectors:
        torch.manual_seed(1)
        pretrained = {name: tensor.detach() for name, tensor in self.encoder.state_dict().items()}
        if clone:
            pretrained = {name: tensor.clone() for name, tensor in pretrained.items()}
        parameters = {name: tensor.detach() for name, tensor in self.encoder.named_parameters()}
        return TaskVectors(pretrained, tuple(self.heads), RandomLayers(parameters, len(self.heads)))


def random_problem(
    model: str,
    tasks: int,
    images_per_task: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """The first `tasks` of the paper's tasks over random weights, the same at every call."""
    torch.manual_seed(0)
    encoder = image_encoder(model).to(device, dtype).eval()
    names, side = tuple(CLASSES)[:tasks], IMAGE_SIZE[model]
    shape = (images_per_task, side, side, 3)
    images = {name: torch.randint(256, shape, dtype=torch.uint8) for name in names}
    with torch.no_grad():
        features = encoder(images[names[0]][:1].to(device))
    heads: dict[str, nn.Module] = {name: RandomHead(CLASSES[name], features) for name in names}
    return Problem(encoder, heads, images)


def image_encoder(model: str) -> nn.Module:
    """A tower with random weights that takes uint8 images as the product's encoders do."""
    if model == "tiny":
        return TinyTower()
    from adamerge_core.vision.clip import create_clip, pixel_scaling
    from adamerge_core.vision.clip import image_encoder as clip_encoder

    architecture = "efficientnet_lite0_clip" if model == "mini" else model
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    return clip_encoder(create_clip(architecture), pixel_scaling(architecture))
