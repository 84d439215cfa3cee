"""Files made by hand, and what is expected of one: what the parts of the room share."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from adamerge_core import checkpoints
from tests.attacks.cases import Case, FaultError, refused

STATE = {
    "first.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "first.bias": torch.tensor([0.5, -0.25, 2.0]),
    "half": torch.tensor([[0.5], [-2.0]], dtype=torch.float16),
    "brain": torch.tensor([0.5, -2.0, 3.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "é": torch.tensor([1, 2], dtype=torch.int8),
}


def load(path: Path | str) -> Any:
    return checkpoints.load(path)


def file_case(name: str, make: Callable[[], bytes], *told: str, severity: Any = "medium") -> Case:
    """A case of a file whose content is refused with these words, without leaving anything."""

    def run(folder: Path) -> None:
        path = folder / "model.ckpt"
        path.write_bytes(make())
        before = psutil.Process().memory_info().rss
        refused(lambda: load(path), str(path), *told)
        grown = psutil.Process().memory_info().rss - before
        if grown > 2**26 + 64 * path.stat().st_size:
            raise FaultError(f"took {grown} bytes for a file of {path.stat().st_size}")
        left = sorted(each.name for each in folder.iterdir())
        if left != ["model.ckpt"]:
            raise FaultError(f"something ran: {left}")

    return Case(f"file: {name}", run, severity, seconds=20, memory=2**30)


class Reduces:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> Any:
        return self._made


WITNESS = "touch ran"


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(pickled: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> bytes:
    """An archive as torch writes it, of a pickle made by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/byteorder", b"little")
        archive.writestr("m/version", b"3\n")
        for key, data in (storages or {}).items():
            archive.writestr(f"m/data/{key}", data)
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def view(
    storage: Any = ("torch", "FloatStorage", "0", 3),
    offset: Any = 0,
    shape: Any = (3,),
    strides: Any = (1,),
    dtype: str | None = None,
) -> bytes:
    """A state dict of one tensor `w` as torch pickles it, with any numbers."""
    module, kind, key, count = storage

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def value(each: Any) -> bytes:
        return pickle.dumps(each, 2)[2:-1]

    version = "_rebuild_tensor_v2" if dtype is None else "_rebuild_tensor_v3"
    end = b"" if dtype is None else f"ctorch\n{dtype}\n".encode()
    return (
        b"\x80\x02}"
        + text("w")
        + f"ctorch._utils\n{version}\n((".encode()
        + text("storage")
        + f"c{module}\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + value(count)
        + b"tQ"
        + value(offset)
        + value(shape)
        + value(strides)
        + b"\x89ccollections\nOrderedDict\n)R"
        + end
        + b"tRs."
    )


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise FaultError unless the tensors are those, bit by bit."""
    if sorted(found) != sorted(expected):
        raise FaultError(f"has {sorted(found)}, must have {sorted(expected)}")
    for name, tensor in expected.items():
        alike = found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        if not alike or not torch.equal(found[name], tensor):
            raise FaultError(f"{name}: {found[name]} is not {tensor}")
