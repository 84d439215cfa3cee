"""Mutations of the three forms of file."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from tests.attacks.cases import Case, FaultError
from tests.attacks.checkpoints.files import STATE, load, same, saved

MUTATIONS = 100
"""In a batch."""


def cases() -> Iterator[Case]:
    forms: dict[str, Callable[[], bytes]] = {
        "safetensors": lambda: to_bytes({n: t.contiguous() for n, t in STATE.items()}),
        "zip": lambda: saved(STATE),
        "older": lambda: saved(STATE, _use_new_zipfile_serialization=False),
    }
    for form, make in forms.items():
        for batch in range(50):
            run = partial(_mutated, make=make, seed=batch)
            name = f"mutations of {form}, {batch}"
            yield Case(name, run, "high", seconds=120, mutations=True)


def _mutated(folder: Path, make: Callable[[], bytes], seed: int) -> int:
    """Try mutations: each is refused, or opens as a state dict that the library reads alike."""
    rng, whole = random.Random(seed), make()
    path = folder / "model.ckpt"
    for _ in range(MUTATIONS):
        data = mutate(rng, whole)
        path.write_bytes(data)
        try:
            state = load(path)
            checkpoints.check_same_architecture(state, {"same": state})
        except InputError:
            continue
        for name, tensor in state.items():
            if not isinstance(name, str) or type(tensor) is not Tensor:
                raise FaultError(f"{name!r} is {type(tensor)}")
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise FaultError(f"{name} is not finite")
            if tensor.numel() * tensor.itemsize > 8 * len(data):
                raise FaultError(f"{name} is larger than the file")
        if data[:2] not in (b"PK", b"\x80\x02"):
            known = safetensors.torch.load(data)  # the library, which must take it as well
            same(state, known)
    return MUTATIONS


def mutate(rng: random.Random, whole: bytes) -> bytes:
    """Damage a file in one to three ways: bits, cuts, doubled ranges, numbers, JSON of a header."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(10):
            case 0 | 1 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 2 if data:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                del data[at:]
            case 4:
                data += rng.randbytes(rng.randrange(1, 40))
            case 5:
                end = min(len(data), at + rng.randrange(1, 60))
                data[at:at] = data[at:end]
            case 6:
                del data[at : at + rng.randrange(1, 20)]
            case 7:
                value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
                width = rng.choice((4, 8))
                data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
            case 8:
                data[at : at + 9] = rng.randbytes(9)
            case _:
                data = _header_edit(rng, data)
    return bytes(data)


def _header_edit(rng: random.Random, data: bytearray) -> bytearray:
    """Change a number or a word of a safetensors file's header, its length kept right."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        return data
    text = bytes(data[8 : 8 + length])
    old, new = rng.choice(
        [
            (b"F32", b"F64"),
            (b"F32", b"I32"),
            (b"F16", b"BF16"),
            (b"[3,4]", b"[4,3]"),
            (b"[3,4]", b"[-3,-4]"),
            (b"[3,4]", b"[12]"),
            (b"[0,4]", b"[4,0]"),
            (b"data_offsets", b"data_offset"),
            (b"shape", b"dtype"),
            (b"first.bias", b"first.weight"),
            (b"half", b"brain"),
            (b"0,", b"1,"),
            (b"{", b"{ "),
            (b'"', b"'"),
            (b":", b"::"),
            (b"]", b""),
        ]
    )
    text = text.replace(old, new, rng.choice((1, -1)))
    return bytearray(len(text).to_bytes(8, "little") + text + data[8 + length :])
