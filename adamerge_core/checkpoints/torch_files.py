"""Files that torch.save wrote, read without running code from them, nor torch's own reader.

The pickle is read as a description (see pickles); what it describes is held against the bytes that
are there (see torch_storages) before any of them is read.
"""

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge_core.checkpoints.memory import as_bytes, empty
from adamerge_core.checkpoints.pickled_modules import module_state, names_in, plain_attributes
from adamerge_core.checkpoints.pickles import Instance, PickleError, TensorView
from adamerge_core.checkpoints.torch_storages import DTYPES, Content, item_bytes, read_content
from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.tensor_names import name_faults

_SUPPORTED = frozenset(DTYPES.values())

_OVERLAP = 8
"""How many times the bytes of the file its tensors may be together: tied weights share theirs."""

_WRAPPERS = ("state_dict", "model")
"""Keys of what training programs save, under which the state dict lies."""

_SHOWN = 20

_FIX = "save model.state_dict() and give that file"


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a zip archive or a pickle does, the two forms of torch.save.

    Raises InputError when it is missing or not regular.
    """
    with open_regular(path) as file:
        start = file.read(9)
    # a safetensors file begins with 8 bytes of any value, its header's length, and the header
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


@dataclass(frozen=True)
class TorchFile:
    """What a torch file holds: a state dict, or a pickled module, as its state dict."""

    tensors: dict[str, Tensor]
    module: str | None = None
    """The module's class, as `module name`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """The module's own that are texts, numbers and truth values."""
    classes: frozenset[str] = frozenset()
    """Of all objects in it."""


def load_torch_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key `state_dict` or `model`, onto the CPU.

    Tensors are contiguous or strided as they were saved; those that shared memory share it. Raises
    InputError when the file is damaged, holds anything but tensors with names that are told apart,
    would need code to be read, or describes more than it holds.
    """
    return read_torch_file(path).tensors


def read_torch_file(
    path: str | os.PathLike[str], classes: frozenset[str] = frozenset()
) -> TorchFile:
    """Read a state dict as load_torch_file does, or a whole module of known classes.

    classes: `module name` of those that a pickled module may be made of. None of their code is
    run, nor looked for: what the module holds is read as a description. Raises InputError as
    load_torch_file does, and listing the classes that are not among them.
    """
    with open_regular(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        try:
            with io.BufferedReader(raw) as file:
                content = read_content(file, size, classes)
                if classes:
                    _refuse_others(content.value, classes, path)
                module = content.value if isinstance(content.value, Instance) else None
                views = module_state(module) if module else _state_dict(content.value)
                if faults := name_faults(views):
                    raise InputError.listing(f"checkpoint {Path(path)}", faults, _SHOWN)
                _check(views, content, size, path)
                tensors = _tensors(views, content)
            if module is None:
                return TorchFile(tensors)
            return TorchFile(
                tensors, module.kind, plain_attributes(module), names_in(module).classes
            )
        except InputError:
            raise
        except PickleError as error:
            known = "of other classes than the published ones " if classes else ""
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): holds {error}; {_FIX} (pickled modules "
                f"{known}are not loaded, since loading them runs code)"
            ) from error
        except (MemoryError, OSError) as error:
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): cannot be read ({error}); free memory, "
                "or copy it again"
            ) from error
        except Exception as error:  # zipfile raises many types for a damaged archive
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): a damaged torch file "
                f"({type(error).__name__} {str(error)[:200]}); copy or make it again"
            ) from error


def _refuse_others(value: Any, classes: frozenset[str], path: str | os.PathLike[str]) -> None:
    """Raise one InputError that lists what a pickle names beyond the classes."""
    found = names_in(value)
    others = found.classes - classes
    if isinstance(value, Instance):
        others |= found.names - classes
    if others:
        faults = [f"names {each.replace(' ', '.')[:100]}" for each in sorted(others)]
        faults.append(f"fix: {_FIX}; no code of a pickle is run")
        raise InputError.listing(
            f"checkpoint {Path(path)}: a pickle of other classes than the published ones",
            faults,
            _SHOWN,
        )


def _state_dict(value: Any) -> dict[str, TensorView]:
    wrapped = [
        value[key]
        for key in _WRAPPERS
        if isinstance(value, dict) and isinstance(value.get(key), dict)
    ]
    if len(wrapped) > 1:
        raise PickleError(f"two state dicts, under the keys {' and '.join(_WRAPPERS)}")
    found = wrapped[0] if wrapped else value
    if not isinstance(found, dict) or not all(isinstance(v, TensorView) for v in found.values()):
        raise PickleError("no state dict")
    return found


def _dtype(view: TensorView) -> torch.dtype | None:
    """The tensor's dtype; None for one that no rule merges."""
    if view.dtype is None:
        return DTYPES.get(view.storage.kind)
    found = getattr(torch, view.dtype.removeprefix("torch "), None)
    return found if isinstance(found, torch.dtype) and found in _SUPPORTED else None


def _check(
    views: Mapping[str, TensorView], content: Content, size: int, path: str | os.PathLike[str]
) -> None:
    """Raise one InputError that lists the tensors that are not all there in the file."""
    faults = []
    for name, view in views.items():
        fault = _view_fault(view, content.sizes)
        if fault:
            faults.append(f"tensor {ascii(name)[1:-1][:100]} {fault}")
    if faults:
        raise InputError.listing(f"checkpoint {Path(path)} ({size} bytes)", faults, _SHOWN)
    total = sum(math.prod(view.shape) * _known(view).itemsize for view in views.values())
    if total > _OVERLAP * size:
        raise InputError(
            f"checkpoint {Path(path)} ({size} bytes): its tensors overlap and are {total} bytes "
            f"together; at most {_OVERLAP} times the file's are read: save copies of them"
        )


def _view_fault(view: TensorView, sizes: Mapping[str, int]) -> str | None:
    dtype = _dtype(view)
    if dtype is None:
        kind = (view.dtype or view.storage.kind).removeprefix("torch ")[:100]
        known = ", ".join(sorted(str(each).removeprefix("torch.") for each in _SUPPORTED))
        return f"is {kind}, not one of {known}; convert it"
    stored = sizes.get(view.storage.key)
    if stored is None:
        return "has no storage in the file"
    if stored != view.storage.count * item_bytes(view.storage):
        return f"says that its storage has {view.storage.count} entries, it has {stored} bytes"
    if len(view.shape) > 64:
        return f"has {len(view.shape)} dimensions: at most 64 are read"
    if math.prod(max(each, 1) for each in view.shape) >= 2**63:
        return f"has shape {list(view.shape)}: more entries than there can be"
    if 0 in view.shape:
        return None
    spans = [(n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)]
    reach = (view.offset + sum(spans) + 1) * dtype.itemsize
    if reach > stored:
        return f"reaches to byte {reach} of a storage of {stored}"
    if math.prod(view.shape) * dtype.itemsize > stored or _overlaps(view):
        return (
            f"of shape {list(view.shape)} and strides {list(view.strides)} repeats its entries; "
            "save tensor.contiguous()"
        )
    return None


def _overlaps(view: TensorView) -> bool:
    """Whether some entry may be two of the tensor's: strides that do not step over each other."""
    end = 1
    for step, count in sorted(zip(view.strides, view.shape, strict=True)):
        if count > 1:
            if step < end:
                return True
            end = (count - 1) * step + end
    return False


def _known(view: TensorView) -> torch.dtype:
    dtype = _dtype(view)
    assert dtype is not None  # checked before
    return dtype


def _tensors(views: Mapping[str, TensorView], content: Content) -> dict[str, Tensor]:
    """Make the tensors; each storage is read once, and one that nobody names not at all."""
    memory: dict[str, Tensor] = {}
    made = {}
    for name, view in views.items():
        dtype, key = _known(view), view.storage.key
        if 0 in view.shape:
            made[name] = torch.empty(view.shape, dtype=dtype)
            continue
        if key not in memory:
            memory[key] = empty(content.sizes[key], torch.uint8)
            content.load(key, as_bytes(memory[key]))
        whole = memory[key][: content.sizes[key] // dtype.itemsize * dtype.itemsize]
        made[name] = torch.as_strided(whole.view(dtype), view.shape, view.strides, view.offset)
    return made
