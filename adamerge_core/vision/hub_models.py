"""Models of the Hugging Face hub as folders: in its cache, or fetched where that is allowed."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from adamerge_core.checkpoints.lora import CONFIG, WEIGHTS
from adamerge_core.checkpoints.shards import INDEX
from adamerge_core.errors import InputError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?", re.ASCII)

OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = "open_clip_config.json", "config.json"

WEIGHTS_FILES = {
    "open_clip_model.safetensors": OPEN_CLIP_CONFIG,
    "open_clip_pytorch_model.safetensors": OPEN_CLIP_CONFIG,
    "model.safetensors": TRANSFORMERS_CONFIG,
    "open_clip_pytorch_model.bin": OPEN_CLIP_CONFIG,
    "pytorch_model.bin": TRANSFORMERS_CONFIG,
}
"""Files of weights in a folder, the first that is there, and the configuration beside each."""


_CONFIGS = (TRANSFORMERS_CONFIG, OPEN_CLIP_CONFIG, CONFIG)

_PREPROCESSING = "preprocessor_config.json"  # how a classifier of transformers scales its images


def is_hub_id(source: str) -> bool:
    """Tell whether a text is a model's id on the hub, `org/name` or `org/name@revision`."""
    return _ID.fullmatch(source) is not None


def hub_folder(model: str) -> Path:
    """Give the folder of a model of the hub; see model_folder for what is fetched, and raised."""
    return model_folder(model, [*WEIGHTS_FILES])


def model_folder(model: str, weights: Sequence[str]) -> Path:
    """Give the folder of a model, at its revision if the id has one, in the hub's cache.

    weights: names of its file of weights, the first that it has being the one to fetch; a file in
    shards counts by its index. A connection is opened only where HF_HUB_OFFLINE=0 says so. Raises
    InputError where the model is neither there nor fetched.
    """
    from huggingface_hub import HfApi, snapshot_download

    allowed = os.environ.get("HF_HUB_OFFLINE") == "0"
    name, _, revision = model.partition("@")
    at = revision or None
    try:
        if not allowed:
            return _cached(name, at)
        wanted = wanted_files(HfApi().list_repo_files(name, revision=at), weights)
        return Path(snapshot_download(name, revision=at, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises many types
        fix = (
            "look at the name"
            if allowed
            else "look at the name, or allow the download with HF_HUB_OFFLINE=0"
        )
        line = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{model}: no such file or folder here, and of the hub's models it is not in the "
            f"cache, and was not fetched ({type(error).__name__}: {line}); {fix}"
        ) from error


def _cached(model: str, revision: str | None) -> Path:
    """Find the folder of the cache that holds a configuration of the model, as all formats have.

    snapshot_download would want all of the model's files there, in every form of its weights.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in _CONFIGS:
        found = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    raise FileNotFoundError(f"none of {', '.join(_CONFIGS)}")


def wanted_files(files: Sequence[str], weights: Sequence[str]) -> list[str]:
    """Choose what to fetch of a model's files: configurations, and one form of the weights.

    weights: names of files of weights, the first that is there being taken, whole or in shards.
    """
    found = [name for name in (*_CONFIGS, _PREPROCESSING) if name in files]
    if CONFIG in files:
        return [*found, WEIGHTS]
    for name in weights:
        if name in files:
            return [*found, name]
        if name + INDEX in files:
            stem, suffix = name.rsplit(".", 1)
            shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
            return [*found, name + INDEX, *filter(shard.fullmatch, files)]
    return found
