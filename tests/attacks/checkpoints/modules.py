"""Mutations of the modules that task_vectors pickled: of their bytes, and of their instructions."""

import io
import pickle
import pickletools
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import ARCHITECTURES
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.published_classes import HEADS
from adamerge_core.vision.published_heads import read_head
from tests.attacks.cases import Case, FaultError
from tests.attacks.checkpoints.files import same
from tests.attacks.checkpoints.mutations import MUTATIONS, mutate
from tests.published_pickles import GLOBALS, encoder_pickle, head_pickle, stand_ins

_BATCHES = 25

_NAME = "tiny"
_TINY: dict[str, Any] = {
    "embed_dim": 2,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 4, "layers": 1, "width": 4, "head_width": 4, "patch_size": 2},
    "text_cfg": {"context_length": 3, "vocab_size": 6, "width": 4, "heads": 1, "layers": 1},
}
"""Small, so that a mutation seldom falls into numbers."""

_HOSTILE = (
    b"cos\nsystem\nX\x09\x00\x00\x00touch ran\x85R",
    b"(X\x09\x00\x00\x00touch ranios\nsystem\n",
    b"(cos\nsystem\nX\x09\x00\x00\x00touch rano",
    b"cos\nsystem\nX\x09\x00\x00\x00touch ran\x85\x81",
    b"cbuiltins\neval\nX\x13\x00\x00\x00open('ran','w') or 1\x85R",
    b"ctorch.storage\n_load_from_bytes\nC\x03abc\x85R",
    b"ctorch\nload\nX\x0a\x00\x00\x00model.ckpt\x85R",
    b"}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb",
    b"X\x09\x00\x00\x00touch ranb",
    b"Pos.system\n",
    b"X\x02\x00\x00\x00osQ",
    b"\x82\x01",
)
"""Instructions that would run code, or call what loads more."""

_STACK = (
    *(b"0", b"1", b"2", b"(", b"N", b"}", b"]", b")", b"t", b"a", b"s", b"u", b"e", b"b", b"R"),
    *(
        b"\x81",
        b"\x85",
        b"\x86",
        b"\x87",
        b"Q",
        b"\x88",
        b"\x89",
        b".",
        b"h\x00",
        b"h\x07",
        b"q\x01",
    ),
    *(b"K\x00", b"K\xff", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x94"),
)
"""Instructions that move what is on the stack, and numbers."""


def cases() -> Iterator[Case]:
    forms: dict[str, Callable[[], bytes]] = {
        "an encoder": lambda: encoder_pickle(_whole()),
        "an encoder, plain, protocol 3": lambda: encoder_pickle(_whole(), plain=3),
        "an encoder, plain, protocol 4": lambda: encoder_pickle(_whole(), plain=4),
        "a head": lambda: head_pickle(torch.arange(12.0).reshape(3, 4)),
    }
    changes: dict[str, Callable[[random.Random, bytes], bytes]] = {
        "bytes": mutate,
        "instructions": _instructions_changed,
    }
    for form, make in forms.items():
        for change, changed in changes.items():
            for batch in range(_BATCHES):
                run = partial(_mutated, make=make, changed=changed, seed=batch)
                name = f"mutated {change} of {form}, {batch}"
                yield Case(name, run, "critical", seconds=180, mutations=True)


def _whole() -> dict[str, Tensor]:
    """Make a CLIP's state dict of the architecture that the cases know."""
    ARCHITECTURES[_NAME] = _TINY
    torch.manual_seed(0)
    return {name: tensor.detach() for name, tensor in CLIP(**_TINY).state_dict().items()}


def _mutated(
    folder: Path,
    make: Callable[[], bytes],
    changed: Callable[[random.Random, bytes], bytes],
    seed: int,
) -> int:
    """Try mutations: each is refused, or gives the tensors that Python's own reader gives; those of
    the whole file where that reader stumbles over a part that holds none.
    """
    rng, whole, path = random.Random(seed), make(), folder / "model.ckpt"
    is_head = "visual" not in "".join(_by_python(whole))
    for _ in range(MUTATIONS):
        data = changed(rng, whole)
        path.write_bytes(data)
        try:
            found = _head(path) if is_head else _tower(path)
        except InputError:
            continue
        finally:
            left = sorted(each.name for each in folder.iterdir())
            if left != ["model.ckpt"]:
                raise FaultError(f"something ran: {left}")
        for name, tensor in found.items():
            if type(tensor) is not Tensor or tensor.numel() * tensor.itemsize > 8 * len(data):
                raise FaultError(f"{name}: {type(tensor)} of {list(tensor.shape)}")
        same(found, _expected(data, whole))
    return MUTATIONS


def _head(path: Path) -> dict[str, Tensor]:
    weight, bias, _ = read_head(path)
    return {"weight": weight, "bias": bias}


def _tower(path: Path) -> dict[str, Tensor]:
    return dict(read_image_tower(path, architecture=_NAME).tensors)


def _expected(data: bytes, whole: bytes) -> dict[str, Tensor]:
    try:
        return _by_python(data)
    except Exception:  # of torch and pickle, many types
        return _by_python(whole)


# --- instructions -------------------------------------------------------------------------------


def _instructions_changed(rng: random.Random, whole: bytes) -> bytes:
    """Insert, remove, double or swap whole instructions of the pickle, in or without an archive."""
    if whole[:2] != b"PK":
        return _changed(rng, whole)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            is_pickle = member.filename.endswith("data.pkl")
            new.writestr(member.filename, _changed(rng, data) if is_pickle else data)
    return buffer.getvalue()


def _changed(rng: random.Random, pickled: bytes) -> bytes:
    parts = _instructions(pickled)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(1, len(parts))
        match rng.randrange(6):
            case 0:
                parts.insert(at, rng.choice(_HOSTILE))
            case 1:
                parts.insert(at, rng.choice(_STACK))
            case 2:
                del parts[at]
            case 3:
                parts.insert(at, parts[at])
            case 4:
                other = rng.randrange(1, len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case _:
                parts[at] = rng.choice((*_HOSTILE, *_STACK))
    return b"".join(parts)


@cache
def _starts(pickled: bytes) -> tuple[int, ...]:
    return tuple(place for _, _, place in pickletools.genops(pickled) if place is not None)


def _instructions(pickled: bytes) -> list[bytes]:
    starts = _starts(pickled)
    return [pickled[a:b] for a, b in zip(starts, (*starts[1:], len(pickled)), strict=True)]


# --- the reference ------------------------------------------------------------------------------


def _by_python(data: bytes) -> dict[str, Tensor]:
    """Read a module as the published code would, by Python's unpickler and torch's modules.

    It gives the classes that are published, stand-ins where they exist no more, and something
    inert for every other name.
    """
    with stand_ins():
        if data[:2] == b"PK":
            found = torch.load(io.BytesIO(data), pickle_module=_reader(), weights_only=False)
        else:
            found = _Restricted(io.BytesIO(data)).load()
        state: dict[str, Any] = found.state_dict() if isinstance(found, nn.Module) else found
        prefix = "model.visual."
        beside = any(name.startswith(prefix) for name in state)
        return {
            name.removeprefix(prefix): tensor.detach()
            for name, tensor in state.items()
            if name.startswith(prefix) or not beside
        }


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        known = f"{module}.{name}" in GLOBALS or f"{module} {name}" in HEADS
        if not known and (module, name) != ("builtins", "set"):
            return _Inert
        if module == "__builtin__":
            module = "builtins"
        __import__(module)
        return getattr(sys.modules[module], name)


class _Inert:
    """Stands for whatever else a pickle names: it can be called, built and thrown away."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _reader() -> Any:
    made = ModuleType("restricted")
    vars(made).update(Unpickler=_Restricted, load=lambda file: _Restricted(file).load())
    return made
