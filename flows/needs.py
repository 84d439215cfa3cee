"""What a suite needs before anything is fetched: download, disk, memory of a GPU, hours."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adamerge_core.vision.architectures import (
    ARCHITECTURES,
    configuration,
    head_width,
    is_classifier,
)
from adamerge_core.vision.datasets.published import PublishedDataset, published_dataset
from adamerge_core.vision.datasets.published_source import PublishedSource
from flows.sizes import gb
from tasks.graph.paths import PROTOCOLS
from tasks.suite.methods import AdaptMethod, Method
from tasks.suite.schema import Suite

_FLOAT = 4  # bytes

_TEXT_TOWER = {512: 63_428_097, 768: 123_650_305}
"""Parameters beside the image tower in OpenAI's models, by the width of the features."""

_SPEED = {"cuda": 20e12, "cpu": 0.1e12}
"""Floating-point operations a second that the hours are reckoned with: some third of what an A100
does in TF32 without sparsity, and of two cores of a server."""

_ACTIVATIONS = (34, 5)
"""Of a transformer's block, bytes in 16 bits: s b h (34 + 5 a s / h) (arXiv 2205.05198)."""


@dataclass(frozen=True)
class _Tower:
    """A ViT's image tower."""

    width: int
    layers: int
    tokens: int
    heads: int
    parameters: int

    @classmethod
    def of(cls, architecture: str) -> "_Tower | None":
        """Read a CLIP ViT's sizes from its configuration; None for another kind of tower."""
        if is_classifier(architecture):
            return None
        config = configuration(architecture)
        vision = config["vision_cfg"]
        if architecture in ARCHITECTURES or not isinstance(vision.get("layers"), int):
            return None
        width, layers, patch = vision["width"], vision["layers"], vision["patch_size"]
        tokens = (vision["image_size"] // patch) ** 2 + 1
        around = 3 * patch * patch * width + (1 + tokens) * width + 4 * width
        blocks = layers * (12 * width * width + 13 * width)
        heads = width // head_width(architecture)
        return cls(width, layers, tokens, heads, around + blocks + width * config["embed_dim"])

    def forward(self) -> float:
        """Floating-point operations of one image, twice the multiplications."""
        products = 2 * self.tokens * self.parameters
        return products + 4 * self.layers * self.tokens**2 * self.width

    def activations(self, images: int) -> float:
        """Bytes kept for a backward pass in float32."""
        linear, square = _ACTIVATIONS
        each = self.tokens * (linear * self.width + square * self.heads * self.tokens)
        return 2 * each * images * self.layers


def needs(suite: Suite) -> list[str]:
    """Say what a suite needs, a line each; every figure is an estimate."""
    return [*_download(suite), *_of_the_models(suite)]


def _download(suite: Suite) -> Iterator[str]:
    known = 0
    unknown: list[str] = []
    for name, source in suite.sources.items():
        if isinstance(source, PublishedSource) and suite.datasets[name]["source"] == "hub":
            dataset = published_dataset(source.dataset)
            size = _bytes_of(dataset, source)
            known, unknown = known + (size or 0), unknown if size else [*unknown, name]
    raw = known
    tower = _Tower.of(suite.model.architecture)
    hubs = sum("hub" in entry for entry in suite.imported.values())
    if tower:
        embed = configuration(suite.model.architecture)["embed_dim"]
        whole = tower.parameters + _TEXT_TOWER.get(embed, 0)
        models = hubs * tower.parameters + (whole if "tag" in suite.model.weights else 0)
        known += models * _FLOAT
    if known or unknown:
        beside = f", and {', '.join(unknown)}, whose size is not known" if unknown else ""
        yield f"download   about {gb(known)}{beside}"
    prepared = _prepared(suite)
    yield f"disk       about {gb(2 * prepared)} for prepared images and their copies in the cache"
    if raw:
        yield (
            f"           about {gb(3 * raw)} for raw images, until `adamerge data drop`: as "
            "fetched, as archives, and copies of these"
        )


def _bytes_of(dataset: PublishedDataset, source: PublishedSource) -> int | None:
    """Of the splits that are read, by their share of the images."""
    size = dataset.bytes["hub"] or dataset.bytes["original"]
    read = sum(dataset.images[split] for split in source.published_splits)
    return size * read // sum(dataset.images.values()) if size else None


def _prepared(suite: Suite) -> int:
    return sum(map(_images, suite.datasets.values())) * suite.size**2 * 3


def _images(entry: dict[str, Any]) -> int:
    """Images of a data set, as far as its entry or the catalogue says."""
    if "dataset" not in entry:
        return sum(entry.get(split, 0) for split in ("pretrain", "train", "val", "test"))
    images = published_dataset(entry["dataset"]).images
    test = entry.get("test") or images["test"]
    if entry.get("test_only"):
        return int(test)
    given = [entry[split] for split in ("train", "val", "pretrain") if entry.get(split)]
    return int(test + (sum(given) if entry.get("train") else images["train"]))


def _of_the_models(suite: Suite) -> Iterator[str]:
    tower = _Tower.of(suite.model.architecture)
    if tower is None:
        return
    size, tasks, seeds = tower.parameters * _FLOAT, len(suite.tasks), len(suite.seeds)
    adapted = [method for method in suite.merging.values() if method.adapts]
    merged = len(suite.merging) + len(adapted) * (len(PROTOCOLS) - 1)
    files = 2 + seeds * (2 * tasks + merged + (suite.traditional_mtl is not None))
    yield f"           about {gb(2 * files * size)} for models: {files} files, and their copies"
    work = (tasks + 3) * size + tower.activations(suite.compute.micro_batch)
    yield (
        f"memory     about {gb(work)} on the device: {tasks} task vectors, three models, and the "
        f"activations of {suite.compute.micro_batch} images"
    )
    operations = seeds * _operations(suite, tower)
    speed = _SPEED[suite.compute.device]
    yield (
        f"time       about {operations / speed / 3600:.1f} hours of computing at "
        f"{speed / 1e12:g} TFLOP/s, without reading and writing"
    )


def _operations(suite: Suite, tower: _Tower) -> float:
    """Of a seed: a training step is reckoned as three forward passes."""
    forward, tasks = tower.forward(), len(suite.tasks)
    passes = 0.0
    if suite.finetune:
        trained = tasks - len(suite.imported)
        passes += 3 * trained * suite.finetune.steps * suite.finetune.batch_size
        if suite.traditional_mtl:
            passes += 3 * suite.traditional_mtl.steps * suite.finetune.batch_size
    for method in suite.merging.values():
        passes += 3 * len(PROTOCOLS) * tasks * _adaptation_images(method)
    corrupted = len(suite.corrupt.tasks) * len(suite.robustness.corruptions)
    for method in suite.robust.values():
        passes += 3 * len(PROTOCOLS) * corrupted * _adaptation_images(method)
    tested = sum(
        published_dataset(entry["dataset"]).images["test"] if "dataset" in entry else 0
        for entry in (suite.datasets[task] for task in suite.tasks)
    )
    evaluated = len(suite.references) + len(suite.merging)
    return forward * (passes + evaluated * tested)


def _adaptation_images(method: Method) -> int:
    """Of a task, over all steps; 0 for a rule."""
    if not isinstance(method, AdaptMethod):
        return 0
    settings = method.settings
    return int(settings.steps * settings.images_per_task * settings.batches_per_step)
