"""State dicts by tensor name, on disk as safetensors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.files import atomic_write

StateDict = dict[str, Tensor]


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` (any shapes and dtypes) to a safetensors file, whole or not at all."""
    # safetensors refuses tensors that share memory, as tied weights and views of one tensor do
    contiguous = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))


def load(path: Path) -> StateDict:
    """Read a checkpoint: a safetensors file, or a torch file that holds only tensors.

    A torch file (.pt, .pth, .bin) is read without running code from it; a state dict under the key
    `state_dict` is taken out. Raises InputError when the file is missing, truncated, no checkpoint
    at all, or would need code to be read.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file; give the path of a .safetensors file")
    if path.suffix in (".pt", ".pth", ".bin"):
        return _load_torch_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"checkpoint {path} ({path.stat().st_size} bytes): not a whole safetensors file "
            f"({error}); copy or make it again"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries beside the tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _load_torch_file(path: Path) -> StateDict:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
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


def check_same_architecture(
    pretrained: Mapping[str, Tensor], models: Mapping[str, StateDict]
) -> None:
    """Raise one InputError that lists every tensor of `models` that does not fit `pretrained`.

    Faults: missing, extra, mis-shaped, of another dtype, non-finite, and integer tensors that
    differ (an integer cannot be interpolated). Tensors are paired by name, never by position.
    """
    faults = _non_finite("pretrained", pretrained)
    for model_name, state in models.items():
        faults += _misfits(model_name, pretrained, state)
    if faults:
        faults.append(
            "fix: give checkpoints of one architecture, fine-tuned from this pretrained one"
        )
        raise InputError.listing("checkpoints that do not fit the pretrained model", faults)


def _misfits(
    model_name: str, pretrained: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    faults = [f"{model_name}: tensor {name} is missing" for name in pretrained if name not in state]
    faults += [f"{model_name}: tensor {name} is extra" for name in state if name not in pretrained]
    for name in pretrained.keys() & state.keys():
        ours, theirs = pretrained[name], state[name]
        if ours.shape != theirs.shape:
            faults.append(
                f"{model_name}: tensor {name} has shape {list(theirs.shape)}, "
                f"the pretrained one {list(ours.shape)}"
            )
        elif ours.dtype != theirs.dtype:
            faults.append(
                f"{model_name}: tensor {name} is {theirs.dtype}, the pretrained one {ours.dtype}"
            )
        elif not ours.is_floating_point() and not torch.equal(ours, theirs):
            faults.append(f"{model_name}: integer tensor {name} differs from the pretrained one")
    return sorted(faults) + _non_finite(model_name, state)


def _non_finite(model_name: str, state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{model_name}: tensor {name} has {int((~torch.isfinite(tensor)).sum())} non-finite values"
        for name, tensor in state.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
