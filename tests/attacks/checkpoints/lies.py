"""Pickles that describe what is not there."""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from tests.attacks.cases import Case
from tests.attacks.checkpoints.files import file_case, saved, view, zipped


def cases() -> Iterator[Case]:
    twelve = {"0": struct.pack("<3f", 1, 2, 3)}
    lies: dict[str, tuple[dict[str, Any], dict[str, bytes]]] = {
        "10^12 entries over stride 0": ({"shape": (10**12,), "strides": (0,)}, twelve),
        "4 entries over stride 0": ({"shape": (4,), "strides": (0,)}, twelve),
        "2 entries over stride 0": ({"shape": (2,), "strides": (0,)}, twelve),
        "10^6 by 10^6 over strides 0": ({"shape": (10**6, 10**6), "strides": (0, 0)}, twelve),
        "overlapping strides": ({"shape": (2, 2), "strides": (1, 1)}, twelve),
        "a negative stride": ({"strides": (-1,), "offset": 2}, twelve),
        "a negative offset": ({"offset": -1}, twelve),
        "an offset beyond": ({"offset": 1}, twelve),
        "an offset far beyond": ({"offset": 2**62}, twelve),
        "a negative size": ({"shape": (-3,)}, twelve),
        "a size of -1": ({"shape": (-1,)}, twelve),
        "one entry more": ({"shape": (4,)}, twelve),
        "2^63 entries": ({"shape": (2**63,)}, twelve),
        "2^62 by 4 entries": ({"shape": (2**62, 4), "strides": (1, 1)}, twelve),
        "no entries of 2^62 by 2^62": (
            {"shape": (0, 2**62, 2**62), "strides": (1, 1, 1)},
            twelve,
        ),
        "a size 2.5": ({"shape": (2.5,)}, twelve),
        "a size True": ({"shape": (True,)}, twelve),
        "a size as text": ({"shape": ("3",)}, twelve),
        "a shape that is no tuple": ({"shape": 3}, twelve),
        "more strides than sizes": ({"strides": (1, 1)}, twelve),
        "fewer strides than sizes": ({"shape": (1, 3)}, twelve),
        "65 dimensions": ({"shape": (1,) * 65, "strides": (1,) * 65}, twelve),
        "10,000 dimensions": ({"shape": (1,) * 10_000, "strides": (1,) * 10_000}, twelve),
        "a storage of 10^12 entries": (
            {"storage": ("torch", "FloatStorage", "0", 10**12), "shape": (10**12,)},
            twelve,
        ),
        "a storage of fewer entries": (
            {"storage": ("torch", "FloatStorage", "0", 2), "shape": (2,)},
            twelve,
        ),
        "a storage of -1 entries": (
            {"storage": ("torch", "FloatStorage", "0", -1), "shape": (0,)},
            twelve,
        ),
        "a storage that is not there": ({"storage": ("torch", "FloatStorage", "7", 3)}, twelve),
        "a storage of another folder": (
            {"storage": ("torch", "FloatStorage", "../data.pkl", 3)},
            twelve,
        ),
        "a storage of 13 bytes": ({}, {"0": bytes(13)}),
        "a storage of no bytes": ({}, {"0": b""}),
        "a storage of no class": ({"storage": ("torch", "Storage", "0", 3)}, twelve),
        "a quantized storage": ({"storage": ("torch", "QInt8Storage", "0", 12)}, twelve),
        "a storage of os": ({"storage": ("os", "system", "0", 3)}, twelve),
        "a double complex storage": (
            {"storage": ("torch", "ComplexDoubleStorage", "0", 3)},
            {"0": bytes(48)},
        ),
        "a dtype float8": (
            {"storage": ("torch.storage", "UntypedStorage", "0", 12), "dtype": "float8_e4m3fn"},
            twelve,
        ),
        "a dtype uint16": (
            {"storage": ("torch.storage", "UntypedStorage", "0", 12), "dtype": "uint16"},
            twelve,
        ),
        "a dtype that is a function": (
            {"storage": ("torch.storage", "UntypedStorage", "0", 12), "dtype": "load"},
            twelve,
        ),
        "a dtype that is not there": (
            {"storage": ("torch.storage", "UntypedStorage", "0", 12), "dtype": "float7"},
            twelve,
        ),
    }
    for name, (changes, storages) in lies.items():
        yield file_case(f"lie: {name}", partial(zipped, view(**changes), storages), severity="high")

    def many(count: int) -> bytes:
        whole = torch.ones(100_000)
        return saved({f"w{number}": whole for number in range(count)})

    yield file_case(
        "lie: 5,000 names for one storage", partial(many, 5000), "overlap", severity="high"
    )
    bits = saved({"w": torch.ones(3)}, _use_new_zipfile_serialization=False)
    for name, count in {"10^12": 10**12, "-1": -1, "2^63 - 1": 2**63 - 1, "4": 4, "2": 2}.items():
        older = bits[:-20] + struct.pack("<q", count) + bits[-12:]
        yield file_case(
            f"lie: {name} entries, older form", lambda older=older: older, severity="high"
        )
    yield file_case("lie: more after the last storage", lambda: bits + b"\0")
