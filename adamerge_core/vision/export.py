"""Merged CLIP models written as folders that open_clip and transformers open themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints.hugging_face import to_hugging_face
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import (
    PixelScaling,
    configuration,
    head_width,
    is_classifier,
    uses_quick_gelu,
)


def export_open_clip(
    folder: Path,
    architecture: str,
    pixels: PixelScaling,
    image_tower: Mapping[str, Tensor],
    text_tower: Mapping[str, Tensor],
) -> None:
    """Write a folder for `open_clip.create_model("local-dir:FOLDER")`: a whole CLIP.

    image_tower: in the names below `visual.`; text_tower: all the other tensors, as they stand in
    a CLIP's state dict.
    """
    whole = {f"visual.{name}": tensor for name, tensor in image_tower.items()} | dict(text_tower)
    checkpoints.save(folder / "open_clip_model.safetensors", whole)
    mean, deviation = pixels
    config = {
        "model_cfg": configuration(architecture),
        "preprocess_cfg": {
            "mean": [value / 255 for value in mean],
            "std": [value / 255 for value in deviation],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    _write(folder / "open_clip_config.json", config)


def export_transformers(
    folder: Path, architecture: str, pixels: PixelScaling, image_tower: Mapping[str, Tensor]
) -> None:
    """Write a folder for `transformers`: CLIPVisionModelWithProjection.from_pretrained(FOLDER).

    Raises InputError for an architecture that is not CLIP's ViT, which transformers does not have.
    """
    vision = configuration(architecture)["vision_cfg"]
    if not is_clip_vit(architecture):
        raise InputError(
            f"{architecture}: its image tower is no ViT as CLIP's, and transformers has none such; "
            "export it for open_clip"
        )
    checkpoints.save(
        folder / "model.safetensors", to_hugging_face(image_tower), metadata={"format": "pt"}
    )
    width = vision["width"]
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": width // head_width(architecture),
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "projection_dim": configuration(architecture)["embed_dim"],
        "hidden_act": "quick_gelu" if uses_quick_gelu(architecture) else "gelu",
        "layer_norm_eps": 1e-5,
        "torch_dtype": str(next(iter(image_tower.values())).dtype).removeprefix("torch."),
    }
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", _preprocessing(vision["image_size"], pixels))


def is_clip_vit(architecture: str) -> bool:
    """Tell whether the image tower is a ViT as CLIP's, which transformers has."""
    if is_classifier(architecture):
        return False
    vision = configuration(architecture)["vision_cfg"]
    return "timm_model_name" not in vision and not isinstance(vision.get("layers"), list)


def _preprocessing(size: int, pixels: PixelScaling) -> dict[str, Any]:
    mean, deviation = pixels
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic, as Pillow counts
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in mean],
        "image_std": [value / 255 for value in deviation],
        "do_convert_rgb": True,
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
