"""Which models can be made, and how pixels of CLIPs are scaled; reading this takes no torch."""

import difflib
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from adamerge_core.errors import InputError

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "efficientnet_lite0_clip": {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": {"context_length": 24, "width": 128, "heads": 4, "layers": 2},
    },
}
"""Configurations of this project's own models, in open_clip's form; open_clip has its own beside
them.
"""

SHIPPED_WEIGHTS = {
    "efficientnet_lite0_clip": ("imagenet",),
    "timm:tf_efficientnet_lite0": ("imagenet",),
}
"""Weights of an image tower or classifier that an installed package ships, by architecture."""

TIMM, TORCHVISION, TRANSFORMERS = "timm", "torchvision", "transformers"
CLASSIFIER_LIBRARIES = (TIMM, TORCHVISION, TRANSFORMERS)
"""Where plain image classifiers come from; their architectures are called LIBRARY:NAME."""

PixelScaling = tuple[tuple[float, float, float], tuple[float, float, float]]

PIXEL_SCALING: dict[str, PixelScaling] = {"efficientnet_lite0_clip": ((127.0,) * 3, (128.0,) * 3)}
"""By own architecture (mean, deviation) of red, green and blue: the tower sees
(pixel - mean) / deviation, pixels in 0 to 255.
"""


Activation = Literal["gelu", "quick_gelu"]

_HEAD_WIDTH = 64
"""Of a ViT's attention where a configuration says no other, as open_clip builds it."""


@cache
def known_architectures() -> tuple[str, ...]:
    """Name the models that can be made: this project's, then open_clip's."""
    return (*ARCHITECTURES, *sorted(path.stem for path in _configs().glob("*.json")))


def split_name(architecture: str) -> tuple[str, str] | None:
    """Split the name of a classifier's architecture, LIBRARY:NAME; None for a CLIP's."""
    library, colon, name = str(architecture).partition(":")
    return (library, name) if colon and library in CLASSIFIER_LIBRARIES else None


def is_classifier(architecture: str) -> bool:
    """Tell whether an architecture is a plain classifier's, by its name alone."""
    return split_name(architecture) is not None


def configuration(architecture: str) -> dict[str, Any]:
    """Read a CLIP architecture's configuration, in open_clip's form.

    Raises InputError for an unknown architecture, with those of a similar name.
    """
    known = isinstance(architecture, str) and architecture in known_architectures()
    if not known:
        near = difflib.get_close_matches(str(architecture), known_architectures(), n=4, cutoff=0.4)
        raise InputError(
            f"model.architecture = {architecture!r}: unknown; known are {', '.join(ARCHITECTURES)}"
            f", the models of open_clip, {', '.join([*near, '…'])}, and classifiers, as "
            "timm:resnet50, torchvision:resnet50 or transformers:FOLDER"
        )
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    text = (_configs() / f"{architecture}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def uses_quick_gelu(architecture: str) -> bool:
    """Tell whether the architecture's transformers have QuickGELU, as OpenAI's models do."""
    return bool(configuration(architecture).get("quick_gelu", False))


def with_activation(architecture: str, activation: Activation) -> str:
    """Name the architecture that differs in nothing but the activation."""
    bare = architecture.removesuffix("-quickgelu")
    return bare if activation == "gelu" else f"{bare}-quickgelu"


def head_width(architecture: str) -> int:
    """Return the width of a head of attention in the architecture's ViT."""
    width: int = configuration(architecture)["vision_cfg"].get("head_width", _HEAD_WIDTH)
    return width


def alike(architecture: str, sizes: Mapping[str, int]) -> list[str]:
    """Name open_clip's models whose image towers have these sizes, the likeliest first.

    sizes: of `vision_cfg`, and embed_dim. Of models that differ in the activation alone, the one
    with the architecture's.
    """
    activation: Activation = "quick_gelu" if uses_quick_gelu(architecture) else "gelu"
    found = set()
    for name in known_architectures():
        config = configuration(name)
        known = {**config["vision_cfg"], "embed_dim": config["embed_dim"]}
        if all(known.get(size) == value for size, value in sizes.items()):
            other = with_activation(name, activation)
            found.add(other if other in known_architectures() else name)

    def likelihood(name: str) -> tuple[bool, int, str]:
        bare = with_activation(name, "gelu")
        return not name.startswith("ViT-"), len(bare), name

    return sorted(found, key=likelihood)


def _configs() -> Path:
    found = importlib.util.find_spec("open_clip")  # imports nothing
    if found is None or found.origin is None:
        raise InputError("package open_clip_torch: not installed; pip install 'adamerge[pipeline]'")
    return Path(found.origin).parent / "model_configs"
