"""One small CLIP in every format that checkpoints of the field have."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from published_pickles import encoder_pickle, tall_masks_state, write
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.checkpoints.hugging_face import to_hugging_face
from adamerge_core.errors import InputError
from adamerge_core.vision import architectures, image_towers
from adamerge_core.vision.image_towers import read_image_tower

WIDTH, LAYERS, EMBED, SIDE, PATCH = 64, 2, 16, 32, 16

TINY: dict[str, Any] = {
    "embed_dim": EMBED,
    "vision_cfg": {"image_size": SIDE, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}
VIT_B_32: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}

NAME, QUICK = "tiny_vit", "tiny_vit-quickgelu"

VISION_CONFIG = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 1,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": EMBED,
    "hidden_act": "quick_gelu",
}


@contextmanager
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the tiny architectures known, of the two activations."""
    monkeypatch.setitem(architectures.ARCHITECTURES, NAME, TINY)
    monkeypatch.setitem(architectures.ARCHITECTURES, QUICK, TINY | {"quick_gelu": True})
    for cached in (architectures.known_architectures, image_towers._layout):
        cached.cache_clear()
    yield
    for cached in (architectures.known_architectures, image_towers._layout):
        cached.cache_clear()


def whole_clip(seed: int, config: Mapping[str, Any] = TINY) -> dict[str, Tensor]:
    """Make a CLIP's state dict of random weights."""
    torch.manual_seed(seed)
    return {n: t.detach() for n, t in CLIP(**config, quick_gelu=True).state_dict().items()}


def tower_of(whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix("visual."): t for n, t in whole.items() if n.startswith("visual.")}


def merged_by_hand(whole: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W + (alpha / r) B A of the adapter below, written out over open_clip's names."""
    merged = {name: tensor.clone() for name, tensor in whole.items()}
    for layer in range(len(adapter) // 4):
        weight = merged[f"visual.transformer.resblocks.{layer}.attn.in_proj_weight"]
        width = weight.shape[1]
        for row, which in ((0, "q_proj"), (2, "v_proj")):
            key = f"base_model.model.encoder.layers.{layer}.self_attn.{which}"
            down, up = (adapter[f"{key}.lora_{x}.weight"].double() for x in "AB")
            part = slice(row * width, (row + 1) * width)
            weight[part] = (weight[part].double() + 32 / len(down) * up @ down).float()
    return merged


def save_adapter(folder: Path, width: int = WIDTH, layers: int = LAYERS) -> dict[str, Tensor]:
    """Write a LoRA adapter as FusionBench's: r 2, alpha 32, on q_proj and v_proj."""
    torch.manual_seed(7)
    tensors = {}
    for layer in range(layers):
        for which in ("q_proj", "v_proj"):
            key = f"base_model.model.encoder.layers.{layer}.self_attn.{which}"
            # of few bits, so that their products are exact in whatever order they are summed
            tensors[f"{key}.lora_A.weight"] = torch.randint(-9, 10, (2, width)) / 64
            tensors[f"{key}.lora_B.weight"] = torch.randint(-9, 10, (width, 2)) / 64
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 32, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def save_vision_model(
    folder: Path, tower: Mapping[str, Tensor], prefix: str = "", **config: Any
) -> Path:
    """Write a folder of transformers' CLIPVisionModel, which has no projection."""
    bare = to_hugging_face({n: t for n, t in tower.items() if n != "proj"})
    folder.mkdir()
    save_file({prefix + n: t for n, t in bare.items()}, folder / "model.safetensors")
    content = {"model_type": "clip_vision_model", **VISION_CONFIG, **config}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def in_all_formats(folder: Path, whole: Mapping[str, Tensor]) -> dict[str, Path]:
    """Write a CLIP's image tower in each format but LoRA."""
    paths = {
        "open_clip, whole": folder / "whole.safetensors",
        "open_clip, tower": folder / "tower.bin",
        "tall_masks": folder / "nonlinear_finetuned.pt",
    }
    save_file(dict(whole), paths["open_clip, whole"])
    torch.save(tower_of(whole), paths["open_clip, tower"])
    torch.save(tall_masks_state(whole), paths["tall_masks"])
    width = len(whole["visual.class_embedding"])
    paths["transformers"] = save_vision_model(
        folder / "vision", tower_of(whole), hidden_size=width, num_attention_heads=width // 64
    )
    paths["task_vectors"] = write(folder / "finetuned.pt", encoder_pickle(whole))
    paths["task_vectors, plain"] = write(folder / "Cars.pt", encoder_pickle(whole, plain=4))
    return paths


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Tell whether two state dicts are the same to the bit; their names must be."""
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def refused(path: Path | str, *parts: str, architecture: str = QUICK, **options: Any) -> None:
    """Have a source refused, with an error that holds these parts."""
    with pytest.raises(InputError) as caught:
        read_image_tower(path, architecture=architecture, **options)
    for part in parts:
        assert part in str(caught.value)
