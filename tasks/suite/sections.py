"""The sections of a suite that hold plain values; datasets and methods have checks of their own."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import configuration
from adamerge_core.vision.corruptions import CORRUPTIONS
from tasks.suite.fields import (
    MANY,
    Decay,
    Images,
    Label,
    Name,
    NoSteps,
    Rate,
    Section,
    Seed,
    Steps,
    one_of,
)

Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MANY)]
Severity = Annotated[int, Field(ge=1, le=5, strict=True)]


def _known_architecture(name: str) -> str:
    try:
        configuration(name)
    except InputError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return name


class Compute(Section):
    key = "compute"

    device: Literal["cpu", "cuda"]
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)]
    """Of a stage process."""
    micro_batch: Images
    """Images per forward and backward pass of an adaptation."""
    precision: Literal["float32", "bfloat16", "bfloat16_backward", "auto"]
    """Of these passes; see adamerge_core.adamerging.Engine."""


class Prepare(Section):
    key = "prepare"

    image_size: Annotated[int, Field(ge=1, le=4096, strict=True)]
    """Pixels of a side."""
    unreadable: Literal["fail", "skip"]
    """What images that cannot be decoded do to the stage; both list them."""


class Corrupt(Section):
    key = "corrupt"

    tasks: Names
    corruptions: Annotated[
        tuple[Annotated[str, one_of(lambda: CORRUPTIONS)], ...],
        Field(min_length=1, max_length=MANY),
    ]
    severities: Annotated[tuple[Severity, ...], Field(min_length=1, max_length=MANY)]
    images: Images
    """The first so many test images of each task."""
    seed: Seed


class Model(Section):
    key = "model"

    name: Label
    """Its folder below data/models."""
    architecture: Annotated[str, AfterValidator(_known_architecture)]


class Pretrain(Section):
    key = "pretrain"

    datasets: Names
    """Those whose split pretrain trains the text tower."""
    steps: Steps
    captions_per_step: Images
    learning_rate: Rate
    warmup_steps: NoSteps
    weight_decay: Decay
    seed: Seed


class Finetune(Section):
    key = "finetune"

    steps: Steps
    batch_size: Images
    learning_rate: Rate
    warmup_steps: NoSteps
    weight_decay: Decay
    gradient_clip: Annotated[float, Field(ge=1e-12, le=1e12, strict=True, allow_inf_nan=False)]


class TraditionalMtl(Section):
    key = "traditional_mtl"

    steps: Steps


class Statistics(Section):
    """What merge rules that need data compute from unlabeled images, once a task."""

    key = "statistics"

    images: Images
    """Of each task, drawn with the seed; all where a task has fewer."""
    split: Literal["train", "val", "test"]
    fisher_probes: Annotated[int, Field(ge=1, le=10**4, strict=True)]
    """See adamerge_core.statistics.fisher_diagonal."""


class Evaluate(Section):
    key = "evaluate"

    held_out_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)]
    """Of the test images: measured on, not adapted on, in the held-out protocol."""
    trajectory_images: Images
    """Of each task's test images, for the accuracy along an adaptation."""
    trajectory_points: Annotated[int, Field(ge=2, le=10**4, strict=True)]
