"""Pickles of modules put together by hand, instruction by instruction."""

import io
import pickle
import struct
import zipfile
from typing import Any

import torch


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def a_dict(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def an_object(kind: str = "src.modeling\nImageEncoder", **attributes: bytes) -> bytes:
    return f"c{kind}\n".encode() + b")\x81" + a_dict(**attributes) + b"b"


def tensor(
    key: str = "0",
    count: int = 4,
    offset: int = 0,
    shape: bytes = b"K\x04\x85",
    strides: bytes = b"K\x01\x85",
    kind: str = "torch\nFloatStorage",
    storage: bytes = b"",
) -> bytes:
    """A tensor of `count` entries; storage: in place of a persistent id."""
    named = b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text("cpu")
    storage = storage or named + number(count) + b"tQ"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + shape
        + strides
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def zipped(pickled: bytes, **storages: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/byteorder", b"little")
        for key, data in ({"0": bytes(16)} | storages).items():
            archive.writestr(f"m/data/{key}", data)
    return buffer.getvalue()


def module(**parts: bytes) -> bytes:
    return b"\x80\x02" + an_object(**parts) + b"."


def of_tensor(described: bytes) -> bytes:
    return module(_parameters=a_dict(weight=described))


def inner(
    value: bytes | None = None, count: int = 4, keys: bytes = b"", end: bytes = b"", floats: int = 4
) -> bytes:
    """What torch.storage._load_from_bytes is given for a storage of some floats."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    start = buffer.getvalue()[: buffer.getvalue().index(b"\x80\x02}q\x00.")]
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("9") + text("cpu")
    value = value or storage + number(count) + b"tQ"
    keys = keys or b"]" + text("9") + b"a"
    data = struct.pack("<q", count) + bytes(4 * floats)
    return start + b"\x80\x02" + value + b"." + b"\x80\x02" + keys + b"." + data + end


def loaded(content: bytes) -> bytes:
    """The instructions that load a storage from bytes."""
    return (
        b"ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(content))
        + content
        + b"\x85R"
    )


def plain(storage: bytes, **options: Any) -> bytes:
    return of_tensor(tensor(storage=storage, **options))
