"""The files that OpenAI published its CLIP models in: TorchScript archives, known by checksums."""

import hashlib
import warnings
import zipfile
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from adamerge_core.errors import InputError

NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What these files hold beside the weights, and state dicts that go back to them."""


def is_torch_script(file: Path) -> bool:
    """Tell whether a file is a TorchScript archive, the form of OpenAI's files."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except Exception:  # zipfile raises many types for what is no archive, or a damaged one
        return False


def openai_state(file: Path) -> dict[str, Tensor]:
    """Read OpenAI's TorchScript archive, if it is one that OpenAI published: by its sha256.

    Tensors are float32; the file's are half precision. Raises InputError for an archive of another
    origin, since to load it would run what it holds.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found not in _published_sha256():
        raise InputError(
            f"{file}: a TorchScript archive (sha256 {found[:16]}…) that is none of those that "
            "OpenAI published; loading it would run its code: save its state dict as safetensors"
        )
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # torch means to drop TorchScript
            warnings.simplefilter("ignore", category)
        state: dict[str, Tensor] = torch.jit.load(file, map_location="cpu").state_dict()
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _published_sha256() -> set[str]:
    """Read the checksums of OpenAI's files, which open_clip has in their addresses."""
    published = (
        open_clip.get_pretrained_cfg(name, "openai").get("url", "")
        for name in open_clip.list_pretrained_models_by_tag("openai")
    )
    return {url.split("/")[-2] for url in published if url}
