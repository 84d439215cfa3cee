"""Tensors of strange kinds in files, and files that are good."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core import checkpoints
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.checkpoints.files import STATE, file_case, load, same, saved


def _tensors_in_files() -> Iterator[Case]:
    for name, (tensor, told) in strange_tensors().items():

        def make(tensor: Any = tensor) -> bytes:
            return saved({"fine": torch.ones(2), "strange": tensor})

        try:
            make()
        except Exception:  # torch cannot save it
            continue
        yield file_case(f"in a file: {name}", make, *told)
        if name not in {"a subclass"}:

            def run(folder: Path, tensor: Any = tensor) -> None:
                path = folder / "m.safetensors"
                refused(lambda: checkpoints.save(path, {"strange": tensor}), "strange")
                if list(folder.iterdir()):
                    raise FaultError("left a file")

            yield Case(f"written: {name}", run)


def strange_tensors() -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Tensors that no rule merges: by name one, and words of the message about a file with it."""
    import warnings

    found: dict[str, tuple[Any, tuple[str, ...]]] = {
        "float8": (torch.ones(3).to(torch.float8_e4m3fn), ("float8",)),
        "float8 of the other kind": (torch.ones(3).to(torch.float8_e5m2), ("float8",)),
        "uint16": (torch.ones(3, dtype=torch.uint16), ("uint16",)),
        "uint32": (torch.ones(3, dtype=torch.uint32), ("uint32",)),
        "uint64": (torch.ones(3, dtype=torch.uint64), ("uint64",)),
        "complex128": (torch.ones(3, dtype=torch.complex128), ("Complex",)),
        "meta": (torch.empty(3, device="meta"), ("meta",)),
        "sparse": (torch.eye(3).to_sparse(), ("sparse",)),
        "an array": (np.ones(3), ()),
        "a list": ([1.0, 2.0], ()),
        "a number": (3.0, ()),
        "None": (None, ()),
        "a text": ("weights", ()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["sparse by rows"] = (torch.eye(3).to_sparse_csr(), ("sparse",))
        found["quantized"] = (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), ())
        found["nested"] = (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), ())
        found["a subclass"] = (torch.ones(3).as_subclass(Sub), ())
    return found


class Sub(Tensor):
    """A tensor that computes in its own way."""


def _good_files() -> Iterator[Case]:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    states: dict[str, dict[str, Tensor]] = {
        "every dtype": STATE,
        "a parameter": {"w": nn.Parameter(torch.ones(3))},
        "one that needs gradients": {"w": torch.ones(3, requires_grad=True)},
        "transposed": {"w": whole.t()},
        "a slice": {"w": whole[1:3, 2:5]},
        "every second": {"w": whole[:, ::2]},
        "channels last": {
            "w": torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        },
        "tied": {"a": whole, "b": whole},
        "views of one": {"a": whole[:2], "b": whole[2:]},
        "empty": {"w": torch.zeros(0)},
        "empty of two": {"w": torch.zeros(3, 0, 2)},
        "a scalar": {"w": torch.tensor(2.5)},
        "complex64": {"w": torch.tensor([1 + 2j])},
        "one of one dimension of 64": {"w": torch.ones((1,) * 64)},
        "500 tensors": {f"w{n}": torch.tensor([float(n)]) for n in range(500)},
        "bits that are no booleans' neighbours": {"w": torch.tensor([True] * 9)},
        "the largest": {"w": torch.tensor([torch.finfo(torch.float32).max])},
        "subnormal": {"w": torch.tensor([1e-42])},
        "negative zero": {"w": torch.tensor([-0.0])},
    }
    for name, state in states.items():
        detached = {key: tensor.detach() for key, tensor in state.items()}
        forms: dict[str, Callable[[Path], Any]] = {
            "safetensors": lambda path, state=state: checkpoints.save(path, state),
            "zip": lambda path, state=state: torch.save(state, path),
            "older": lambda path, state=state: torch.save(
                state, path, _use_new_zipfile_serialization=False
            ),
            "protocol 4": lambda path, state=state: torch.save(state, path, pickle_protocol=4),
            "under state_dict": lambda path, state=state: torch.save(
                {"state_dict": OrderedDict(state), "epoch": 3, "lr": [0.1], "best": None}, path
            ),
        }
        for form, write in forms.items():

            def run(folder: Path, write=write, detached=detached) -> None:  # type: ignore[no-untyped-def]
                path = folder / "model.bin"
                write(path)
                same(load(path), detached)
                same(load(str(path)), detached)

            yield Case(f"good: {name}, {form}", run)
    models = {
        "a convolution with a norm": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "a transformer's layer": nn.TransformerEncoderLayer(8, 2, 16),
        "a recurrent one": nn.LSTM(3, 4),
    }
    for name, model in models.items():

        def run(folder: Path, model: nn.Module = model) -> None:
            optimizer = torch.optim.AdamW(model.parameters())
            whole = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(whole, folder / "a.ckpt")
            same(load(folder / "a.ckpt"), model.state_dict())

        yield Case(f"good: {name}, with its optimizer", run)


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _tensors_in_files()
    yield from _good_files()
