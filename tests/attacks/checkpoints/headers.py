"""Headers of safetensors files."""

import json
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.cases import Case, refused
from tests.attacks.checkpoints.files import file_case, load


def with_header(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def header_entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def cases() -> Iterator[Case]:
    entry = json.dumps(header_entry())
    wrong: dict[str, bytes] = {
        "a name twice": with_header(f'{{"a":{entry},"a":{entry}}}'.encode()),
        "shape twice": with_header(
            b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}}'
        ),
        "metadata twice": with_header(
            f'{{"__metadata__":{{}},"__metadata__":{{"a":"b"}},"a":{entry}}}'.encode()
        ),
        "a list": with_header(b"[]      ", b""),
        "a text": with_header(b'"abcdefg"', b""),
        "no JSON": with_header(b"{abcdefg}"),
        "JSON and more": with_header(f'{{"a":{entry}}} x'.encode()),
        "UTF-16": with_header(f'{{"a":{entry}}}'.encode("utf-16")),
        "no UTF-8": with_header(b'{"\xff":' + entry.encode() + b"}"),
        "a BOM": with_header(b"\xef\xbb\xbf" + f'{{"a":{entry}}}'.encode()),
        "a lone surrogate": with_header(f'{{"\\ud800":{entry}}}'.encode()),
        "3,000 nested lists": with_header(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
        "100,000 nested lists": with_header(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
        "a number of 5,000 digits": with_header(
            b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'
        ),
        "NaN": with_header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
        "Infinity": with_header(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'),
        "metadata that is a list": with_header({"__metadata__": [], "a": header_entry()}),
        "metadata of numbers": with_header({"__metadata__": {"a": 1}, "a": header_entry()}),
        "metadata of dicts": with_header({"__metadata__": {"a": {}}, "a": header_entry()}),
        "a hole": with_header(
            {"a": header_entry(), "b": header_entry(data_offsets=[12, 20])}, bytes(20)
        ),
        "an overlap": with_header(
            {"a": header_entry(), "b": header_entry(data_offsets=[4, 12])}, bytes(12)
        ),
        "one range for two": with_header({"a": header_entry(), "b": header_entry()}),
        "a start after 0": with_header({"a": header_entry(data_offsets=[8, 16])}, bytes(16)),
        "bytes of no tensor": with_header({"a": header_entry()}, bytes(9)),
        "too few bytes": with_header({"a": header_entry()}, bytes(7)),
        "no tensors and bytes": with_header({}, bytes(1)),
        "a header longer than the file": with_header({"a": header_entry()}, length=2**40),
        "a header of 2^63": with_header({"a": header_entry()}, length=2**63),
        "a header of 2^64 - 1": with_header({"a": header_entry()}, length=2**64 - 1),
        "a header of 0": with_header({"a": header_entry()}, length=0),
        "a header of 1": with_header({"a": header_entry()}, length=1),
        "a header cut short": with_header({"a": header_entry()}, length=20),
        "7 bytes": b"\0" * 7,
        "8 bytes": b"\0" * 8,
        "nothing": b"",
        "zeros": bytes(1000),
    }
    for name, content in wrong.items():
        yield file_case(f"header: {name}", lambda content=content: content)
    entries: dict[str, Any] = {
        "float8": {"dtype": "F8_E4M3", "shape": [8]},
        "float8 of the other kind": {"dtype": "F8_E5M2", "shape": [8]},
        "uint16": {"dtype": "U16", "shape": [4]},
        "uint64": {"dtype": "U64", "shape": [1]},
        "an unknown dtype": {"dtype": "F31"},
        "a dtype in small letters": {"dtype": "f32"},
        "a dtype that is null": {"dtype": None},
        "a dtype that is a list": {"dtype": ["F32"]},
        "a shape of another size": {"shape": [3]},
        "a negative size": {"shape": [-2]},
        "two negative sizes": {"shape": [-1, -2]},
        "a size 2.0": {"shape": [2.0]},
        "a size true": {"shape": [True, 2]},
        "a size as text": {"shape": ["2"]},
        "a size of 2^64 + 2": {"shape": [2**64 + 2]},
        "sizes whose product wraps": {"shape": [2**32, 2**32]},
        "2^62 of no entries": {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
        "65 dimensions": {"shape": [1] * 64 + [2]},
        "10,000 dimensions": {"shape": [1] * 10_000 + [2]},
        "a shape null": {"shape": None},
        "a shape 2": {"shape": 2},
        "offsets turned around": {"data_offsets": [8, 0]},
        "negative offsets": {"data_offsets": [-8, 0]},
        "one offset": {"data_offsets": [8]},
        "three offsets": {"data_offsets": [0, 4, 8]},
        "an offset 8.0": {"data_offsets": [0, 8.0]},
        "an offset true": {"data_offsets": [False, 8]},
        "an offset of 2^70": {"data_offsets": [0, 2**70]},
        "an extra key": {"more": 1},
    }
    for name, changes in entries.items():
        header = {"a": header_entry(**changes)}
        yield file_case(f"header: {name}", partial(with_header, header), "tensor a")
    for key in ("dtype", "shape", "data_offsets"):
        left = {name: value for name, value in header_entry().items() if name != key}
        yield file_case(f"header: without {key}", partial(with_header, {"a": left}), "tensor a")
    for value in (None, 1, "a", [], [1]):
        yield file_case(
            f"header: an entry {value!r}", partial(with_header, {"a": value}), "tensor a"
        )

    def huge(folder: Path) -> None:
        """A sparse file of 100 TB with a header that fits it."""
        path, size = folder / "huge.safetensors", 10**14
        header = json.dumps({"a": header_entry(shape=[size // 4], data_offsets=[0, size])}).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            try:
                file.truncate(8 + len(header) + size)
            except OSError:
                return  # this file system has no such files
        refused(lambda: load(path), "memory")

    yield Case("header: a sparse file of 100 TB", huge, "high", seconds=20)
