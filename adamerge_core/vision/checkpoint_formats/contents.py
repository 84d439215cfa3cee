"""What lies at a source, a file, a folder or a model of the hub: opened, and not yet understood.

Nothing here looks at a file's name for what the file is; the names of files in a folder are those
that transformers, open_clip and peft look for themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge_core.checkpoints.lora import CONFIG as ADAPTER_CONFIG
from adamerge_core.checkpoints.lora import is_adapter
from adamerge_core.checkpoints.shards import INDEX, open_shards
from adamerge_core.checkpoints.state_dicts import open_state_dict
from adamerge_core.checkpoints.torch_files import is_torch_file, read_torch_file
from adamerge_core.checkpoints.wrappers import split_image_tower
from adamerge_core.errors import InputError
from adamerge_core.vision.hub_models import is_hub_id, model_folder
from adamerge_core.vision.openai_files import is_torch_script, openai_state
from adamerge_core.vision.published_classes import PUBLISHED_CLASSES

OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = "open_clip_config.json", "config.json"

_WEIGHTS = {
    "open_clip_model.safetensors": OPEN_CLIP_CONFIG,
    "open_clip_pytorch_model.safetensors": OPEN_CLIP_CONFIG,
    "model.safetensors": TRANSFORMERS_CONFIG,
    "open_clip_pytorch_model.bin": OPEN_CLIP_CONFIG,
    "pytorch_model.bin": TRANSFORMERS_CONFIG,
}
"""Files of weights in a folder, the first that is there, and the configuration beside each."""

WEIGHT_FILES = tuple(_WEIGHTS)


@dataclass(frozen=True)
class Content:
    """What lies at a source."""

    source: str
    """As the user gave it."""
    path: Path
    """Of the file, or of the folder."""
    tensors: Mapping[str, Tensor]
    """By the names in the file; none of an adapter."""
    module: str | None = None
    """The class of a pickled module, as `module name`."""
    classes: frozenset[str] = frozenset()
    """Of all objects in a pickled module."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration in a folder."""
    is_adapter: bool = False
    """Whether it is the folder of a peft adapter."""
    is_openai: bool = False
    """Whether it is one of the archives that OpenAI published."""

    @cached_property
    def split(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The tensors without prefixes: of the image tower, and the others."""
        return split_image_tower(self.tensors, self.source)


def open_content(source: str | Path) -> Content:
    """Open a file, a folder, or a model of the hub by its id, `org/name` or `org/name@revision`.

    A path that exists is never an id. Raises InputError where there is nothing, and where what is
    there is broken or would need code to be read.
    """
    path = Path(source)
    if path.is_dir():
        return _open_folder(str(source), path)
    if not path.exists() and isinstance(source, str) and is_hub_id(source):
        return _open_folder(source, model_folder(source, WEIGHT_FILES))
    return _open_file(str(source), path)


def _open_file(source: str, path: Path) -> Content:
    if not is_torch_file(path):
        return Content(source, path, open_state_dict(path))
    if is_torch_script(path):
        return Content(source, path, openai_state(path), is_openai=True)
    file = read_torch_file(path, PUBLISHED_CLASSES)
    return Content(source, path, file.tensors, file.module, file.classes)


def _open_folder(source: str, folder: Path) -> Content:
    if is_adapter(folder):
        return Content(source, folder, {}, is_adapter=True)
    for name, config in _WEIGHTS.items():
        if (folder / name).is_file():
            tensors = open_state_dict(folder / name)
        elif (folder / (name + INDEX)).is_file():
            tensors = open_shards(folder / (name + INDEX))
        else:
            continue
        return Content(source, folder, tensors, config=_config(folder / config))
    raise InputError(
        f"{source}: a folder without a checkpoint; expected are {', '.join(_WEIGHTS)} or "
        f"{ADAPTER_CONFIG} in it, or give the path of a file"
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: no configuration beside the weights ({error}); give the whole folder, or the "
            "path of the file of weights alone"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: must hold a JSON object; copy it again")
    return config
