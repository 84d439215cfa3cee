"""State dicts in files: written as safetensors, read from safetensors or torch files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints.torch_files import is_torch_file, load_torch_file
from adamerge_core.safetensors_files import open_safetensors

StateDict = dict[str, Tensor]


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (any shapes and dtypes) to a safetensors file, whole or not at all.

    metadata: text entries beside the tensors (see read_metadata). The format is safetensors
    whatever the suffix of `path` is.
    """
    # safetensors refuses tensors that share memory, as tied weights and views of one tensor do
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))


def load(path: Path) -> StateDict:
    """Read a checkpoint: a safetensors file, or a torch file that holds only tensors.

    The content decides which of them it is, whatever the suffix. A torch file is read without
    running code from it; a state dict under the key `state_dict` is taken out. Raises InputError
    when the file is missing, truncated, no checkpoint at all, or would need code to be read.
    """
    if path.is_file() and is_torch_file(path):
        return load_torch_file(path)
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
