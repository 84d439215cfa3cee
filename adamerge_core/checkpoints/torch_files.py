"""Files that torch.save wrote, read without running code from them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adamerge_core.errors import InputError


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as a zip archive or a pickle does, the two forms of torch.save."""
    with path.open("rb") as file:
        start = file.read(9)
    # a safetensors file begins with 8 bytes of any value, its header's length, and the header
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


def load_torch_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key `state_dict`, onto the CPU.

    Raises InputError when the file is broken, holds anything but tensors, or would need code to be
    read.
    """
    try:
        with path.open("rb") as file:  # of a path torch goes by the suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken or unsafe file
        raise InputError(
            f"checkpoint {path} ({path.stat().st_size} bytes): not a torch file of plain tensors; "
            "save model.state_dict() and give that file (pickled modules are not loaded, since "
            "loading them runs code)"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"checkpoint {path}: holds no state dict; save model.state_dict()")
    return {str(name): tensor for name, tensor in content.items()}
