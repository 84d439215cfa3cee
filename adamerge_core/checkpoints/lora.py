"""peft LoRA adapters, merged into the weights that they were trained beside."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core.checkpoints.state_dicts import load
from adamerge_core.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter's folder, as peft's save_pretrained writes them."""

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"

_OTHER_COMPUTATIONS = (
    "use_dora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "layers_pattern",
)
"""Settings under which an adapter is more than W + (alpha / r) B A, or of ranks of its own."""


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds a peft adapter."""
    return (folder / CONFIG).is_file()


def merge_adapter(base: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Add a LoRA adapter to the state dict that it was trained beside: W + (alpha / r) B A (Hu et
    al., 2022, section 4.1), alpha / sqrt(r) in place of alpha / r where it says `use_rslora`.

    base: in the names that the adapter has, those of transformers; prefixes before them
    (`vision_model.`) may differ. The product is computed in double precision. Raises InputError
    listing settings that ask for another computation, and tensors that fit none of the base.
    """
    settings, adapter = _settings(folder / CONFIG), load(folder / WEIGHTS)
    rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    factor = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    merged, faults = dict(base), list[str]()
    names = {_bare(name): name for name in base}
    for key in adapter:
        if key.endswith(_UP) and key.removesuffix(_UP) + _DOWN in adapter:
            continue  # comes with the other one
        module = key.removeprefix(_PREFIX).removesuffix(_DOWN)
        name, up = names.get(_bare(f"{module}.weight")), adapter.get(_up(key))
        if not key.endswith(_DOWN) or name is None or up is None:
            faults.append(f"{key}: fits no weight of the base model")
            continue
        down = adapter[key]
        if len(down) != rank or (len(up), down.shape[1]) != tuple(base[name].shape):
            faults.append(
                f"{key}: {tuple(up.shape)} times {tuple(down.shape)} is not {name}, "
                f"{tuple(base[name].shape)}, by rank {rank}"
            )
            continue
        change = factor * (up.double() @ down.double())
        merged[name] = (base[name].double() + change).to(base[name].dtype)
    if faults:
        raise InputError.listing(f"{folder}: an adapter that does not fit", faults)
    return merged


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no adapter's configuration ({error})") from error
    faults = [
        f"{key} = {settings[key]!r}: is not supported; merge it with peft's merge_and_unload() and "
        "give the checkpoint"
        for key in _OTHER_COMPUTATIONS
        if settings.get(key)
    ]
    faults += [
        f"{key}: is missing"
        for key in ("r", "lora_alpha")
        if not isinstance(settings.get(key), int)
    ]
    if str(settings.get("peft_type", "LORA")).upper() != "LORA":
        faults.append(f"peft_type = {settings['peft_type']!r}: only LORA is read")
    if settings.get("bias", "none") != "none":
        faults.append(f"bias = {settings['bias']!r}: only none is read")
    if settings.get("modules_to_save"):
        faults.append(f"modules_to_save = {settings['modules_to_save']!r}: are not read")
    if faults:
        raise InputError.listing(str(path), faults)
    return settings


def _up(key: str) -> str:
    return key.removesuffix(_DOWN) + _UP


def _bare(name: str) -> str:
    return name.removeprefix("vision_model.")
