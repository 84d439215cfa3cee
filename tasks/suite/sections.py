"""The sections of a suite that hold plain values; datasets and methods have checks of their own."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import configuration
from adamerge_core.vision.corruptions import CORRUPTIONS
from tasks.suite.fields import Count, Label, Name, Positive, Section, Seed, one_of

Names = Annotated[tuple[Name, ...], Field(min_length=1)]
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
    threads: Count
    """Of a stage process."""
    micro_batch: Count
    """Images per forward and backward pass of an adaptation."""
    precision: Literal["float32", "bfloat16", "bfloat16_backward", "auto"]
    """Of these passes; see adamerge_core.adamerging.Engine."""


class Prepare(Section):
    key = "prepare"

    image_size: Count
    """Pixels of a side."""
    unreadable: Literal["fail", "skip"]
    """What images that cannot be decoded do to the stage; both list them."""


class Corrupt(Section):
    key = "corrupt"

    tasks: Names
    corruptions: Annotated[
        tuple[Annotated[str, one_of(lambda: CORRUPTIONS)], ...], Field(min_length=1)
    ]
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)]
    images: Count
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
    steps: Count
    captions_per_step: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    seed: Seed


class Finetune(Section):
    key = "finetune"

    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive


class TraditionalMtl(Section):
    key = "traditional_mtl"

    steps: Count


class Statistics(Section):
    """What merge rules that need data compute from unlabeled images, once a task."""

    key = "statistics"

    images: Count
    """Of each task, drawn with the seed; all where a task has fewer."""
    split: Literal["train", "val", "test"]
    fisher_probes: Count
    """See adamerge_core.statistics.fisher_diagonal."""


class Evaluate(Section):
    key = "evaluate"

    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Of the test images: measured on, not adapted on, in the held-out protocol."""
    trajectory_images: Count
    """Of each task's test images, for the accuracy along an adaptation."""
    trajectory_points: Annotated[int, Field(ge=2, strict=True)]
