"""State dicts in files: written as safetensors, read from safetensors or torch files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints.architecture import state_dict_faults
from adamerge_core.checkpoints.tensor_files import TensorFile
from adamerge_core.checkpoints.torch_files import is_torch_file, load_torch_file
from adamerge_core.errors import InputError

StateDict = dict[str, Tensor]

_SHOWN = 20


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors (any shapes and dtypes) to a safetensors file, whole or not at all.

    metadata: text entries beside the tensors (see read_metadata). The format is safetensors
    whatever the suffix of `path` is. Raises InputError listing what is no plain tensor of a dtype
    that checkpoints hold (see state_dict_faults).
    """
    faults = state_dict_faults("state dict", tensors)
    if not faults and not tensors:  # safetensors writes a header that is no JSON
        faults = ["state dict: holds no tensor; give at least one"]
    if faults:
        raise InputError.listing(f"checkpoint {path} was not written", faults, _SHOWN)
    # safetensors refuses tensors that share memory, as tied weights and views of one tensor do
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))
        if metadata and len(metadata) > 1:
            _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the entries of the metadata in order; safetensors writes them in any."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "a header that is only in another order is as long"
        file.seek(8)
        file.write(text.ljust(size))


def load(path: str | os.PathLike[str]) -> StateDict:
    """Read a checkpoint: a safetensors file, or a torch file that holds only tensors.

    The content decides which of them it is, whatever the suffix. A torch file is read without
    running code from it; a state dict under the key `state_dict` or `model` is taken out. Raises
    InputError when the file is missing, not regular, truncated, no checkpoint at all, or would need
    code to be read, and listing the tensors whose names, dtypes or shapes break a rule.
    """
    return dict(open_state_dict(path))


def open_state_dict(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """Open a checkpoint as `load` reads it; of a safetensors file a tensor is read at each access.

    Raises InputError as `load` does.
    """
    return load_torch_file(path) if is_torch_file(path) else TensorFile(path)
