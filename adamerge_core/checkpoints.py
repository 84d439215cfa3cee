"""State dicts by tensor name, on disk as safetensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.widening import wide

StateDict = dict[str, Tensor]


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` (any shapes and dtypes) to a safetensors file, whole or not at all.

    The format is the same whatever the suffix of `path` is.
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

    Which of them it is follows from its content, whatever its suffix. A torch file is read without
    running code from it; a state dict under the key `state_dict` is taken out. Raises InputError
    when the file is missing, truncated, no checkpoint at all, or would need code to be read.
    """
    if path.is_file() and _is_torch_file(path):
        return _load_torch_file(path)
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def open_safetensors(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file and check its layout: every byte belongs to one tensor.

    Raises InputError when the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"checkpoint {path} ({path.stat().st_size} bytes): not a whole safetensors file "
            f"({error}); copy or make it again"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries beside the tensors of a safetensors file.

    Raises InputError when the file is missing, truncated or no safetensors file.
    """
    with open_safetensors(path) as file:
        return dict(file.metadata() or {})


def _is_torch_file(path: Path) -> bool:
    """Whether it begins as a zip archive or a pickle does, which torch.save writes."""
    with path.open("rb") as file:
        start = file.read(9)
    # a safetensors file begins with 8 bytes of any value, its header's length, and the header
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


def _load_torch_file(path: Path) -> StateDict:
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


def check_same_architecture(
    pretrained: Mapping[str, Tensor], models: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raise one InputError that lists every tensor of `models` that does not fit `pretrained`.

    Faults: missing, extra, mis-shaped, of another dtype, non-finite, and complex tensors that
    differ, which no rule merges. The values of integer tensors are passed over: counters, such as
    a batch norm's num_batches_tracked, and index tables cannot be interpolated, and the pretrained
    ones stay. Tensors are paired by name, never by position, and each is read once.
    """
    faults = non_finite("pretrained", pretrained)
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
    faults, values = _unpaired(model_name, pretrained, state), []
    for name, theirs in state.items():
        values += non_finite(model_name, {name: theirs})
        if name not in pretrained:
            continue
        ours = pretrained[name]
        layout = _layout_fault(model_name, name, ours, theirs)
        if not layout and ours.is_complex() and not torch.equal(ours.cpu(), theirs.cpu()):
            faults.append(f"{model_name}: complex tensor {name} differs from the pretrained one")
        faults += layout
    return sorted(faults) + values


def layout_faults(
    model_name: str, pretrained: Mapping[str, Tensor], layout: Mapping[str, Tensor]
) -> list[str]:
    """What keeps the tensors of `layout` from being read into the dtypes of `pretrained`.

    layout: shapes and dtypes; values are not looked at. Faults: missing, extra, mis-shaped, and of
    a dtype whose values the pretrained one does not hold exactly.
    """
    faults = _unpaired(model_name, pretrained, layout)
    for name in pretrained.keys() & layout.keys():
        ours, theirs = pretrained[name], layout[name]
        if theirs.is_floating_point() and widens(theirs.dtype, ours.dtype):
            theirs = theirs.to(ours.dtype)
        faults += _layout_fault(model_name, name, ours, theirs)
    return sorted(faults)


def widens(dtype: torch.dtype, into: torch.dtype) -> bool:
    """Whether `into` holds every value of `dtype`."""
    return torch.promote_types(dtype, into) == into


def _unpaired(
    model_name: str, pretrained: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    faults = [f"{model_name}: tensor {name} is missing" for name in pretrained if name not in state]
    return faults + [
        f"{model_name}: tensor {name} is extra" for name in state if name not in pretrained
    ]


def _layout_fault(model_name: str, name: str, ours: Tensor, theirs: Tensor) -> list[str]:
    if ours.shape != theirs.shape:
        return [
            f"{model_name}: tensor {name} has shape {list(theirs.shape)}, "
            f"the pretrained one {list(ours.shape)}"
        ]
    if ours.dtype != theirs.dtype:
        return [f"{model_name}: tensor {name} is {theirs.dtype}, the pretrained one {ours.dtype}"]
    return []


def non_finite(model_name: str, state: Mapping[str, Tensor]) -> list[str]:
    """The tensors that hold infinities or NaN, a line each."""
    return [
        f"{model_name}: tensor {name} has {int((~torch.isfinite(tensor)).sum())} non-finite values"
        for name, tensor in state.items()
        if tensor.is_floating_point() and not all_finite(tensor)
    ]


def all_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds no infinity and no NaN."""
    # these make a sum non-finite too, which takes one pass; a sum of finite values may overflow
    return bool(torch.isfinite(tensor.sum(dtype=wide(tensor.dtype)))) or bool(
        torch.isfinite(tensor).all()
    )
