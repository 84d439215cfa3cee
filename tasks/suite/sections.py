"""The sections of a suite that hold plain values; datasets and methods have checks of their own."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import (
    CLASSIFIER_LIBRARIES,
    SHIPPED_WEIGHTS,
    TRANSFORMERS,
    is_classifier,
    known_architectures,
    split_name,
)
from adamerge_core.vision.corruptions import CORRUPTIONS
from adamerge_core.vision.known_models import check_architecture
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
    shown,
)

Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MANY)]
Severity = Annotated[int, Field(ge=1, le=5, strict=True)]


def _known_architecture(name: str) -> str:
    library, _ = split_name(name) or ("", "")
    if library == TRANSFORMERS:
        known = " or ".join(each for each in CLASSIFIER_LIBRARIES if each != TRANSFORMERS)
        raise ValueError(f"must be a CLIP, or a classifier of {known}, in a suite")
    try:
        check_architecture(name)
    except InputError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return name


_CLASSIFIER_WEIGHTS = (
    "must be {package: imagenet}, {file: PATH} or {hub: ORGANISATION/NAME, revision: COMMIT or "
    "main}"
)
_WEIGHTS = "must be {package: imagenet}, {tag: TAG} or {file: PATH, activation: quick_gelu or gelu}"


def weights_faults(architecture: Any, weights: Mapping[str, Any]) -> list[str]:
    """List what is wrong with `model.weights`, a line each.

    `package: imagenet` is an image tower's that an installed package ships (the text tower is
    trained by pretrain); `tag` is one of open_clip's of the architecture; `file` holds a whole
    CLIP, and says the activation that its weights were trained with. A classifier's come from a
    package, a file or the hub (see checkpoint_faults).
    """
    keys = set(weights)
    if isinstance(architecture, str) and is_classifier(architecture):
        if keys != {"package"}:
            return checkpoint_faults("model.weights", weights, _CLASSIFIER_WEIGHTS)
        if weights["package"] not in SHIPPED_WEIGHTS.get(architecture, ()):
            return [
                f"model.weights.package = {shown(weights['package'])}: no package ships them for "
                f"{shown(architecture)}; give a file or a model of the hub"
            ]
        return []
    if keys not in ({"package"}, {"tag"}, {"file", "activation"}):
        return [f"model.weights = {shown(dict(weights))}: {_WEIGHTS}"]
    faults = [
        f"model.weights.{key} = {shown(value)}: must be text"
        for key, value in weights.items()
        if not isinstance(value, str)
    ]
    known = architecture in known_architectures()  # told of elsewhere
    if (
        known
        and "package" in keys
        and weights["package"] not in SHIPPED_WEIGHTS.get(architecture, ())
    ):
        faults.append(
            f"model.weights.package = {shown(weights['package'])}: no package ships them for "
            f"{shown(architecture)}; give a tag of open_clip's or a file"
        )
    if "activation" in keys and weights["activation"] not in ("quick_gelu", "gelu"):
        faults.append(
            f"model.weights.activation = {shown(weights['activation'])}: must be quick_gelu "
            "(OpenAI's, and all that go back to them) or gelu"
        )
    return faults


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
    weights: dict[str, str]
    """Where its pretrained weights come from: see weights_faults."""

    @property
    def is_classifier(self) -> bool:
        """Whether it is a plain classifier, whose tasks have heads of their own and no prompts."""
        return is_classifier(self.architecture)


class Checkpoints(Section):
    """Models of tasks, and heads, that are imported in place of being made here."""

    key = "checkpoints"

    line: Label
    """Which family they are of: figures of two families are not comparable."""
    finetuned: Annotated[dict[Name, dict[str, str]], Field(min_length=1, max_length=MANY)]
    """By task: see checkpoint_faults."""
    heads: Annotated[dict[Name, dict[str, str]], Field(max_length=MANY)]
    """Of the tasks whose checkpoints were trained against another head than a rebuilt one."""


_CHECKPOINT = "must be {file: PATH} or {hub: ORGANISATION/NAME, revision: COMMIT or main}"
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_REVISION = re.compile(r"[0-9a-f]{40}|main")


def checkpoint_faults(where: str, entry: Mapping[str, Any], forms: str = _CHECKPOINT) -> list[str]:
    """List what is wrong with the entry of an imported checkpoint, a line each after `where`.

    `file` is a file or folder of the user's; `hub` a model of the hub, at a commit of 40 hex
    digits or at its newest.
    """
    if set(entry) not in ({"file"}, {"hub", "revision"}):
        return [f"{where} = {shown(dict(entry))}: {forms}"]
    rules = {
        "hub": (_HUB_ID, "ORGANISATION/NAME"),
        "revision": (_REVISION, "40 hex digits or main"),
    }
    return [
        f"{where}.{key} = {shown(entry[key])}: must be {rule}"
        for key, (pattern, rule) in rules.items()
        if key in entry and not (isinstance(entry[key], str) and pattern.fullmatch(entry[key]))
    ]


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
