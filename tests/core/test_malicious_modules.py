"""Pickled modules that mean harm: each is refused, and nothing of it runs."""

import builtins
import functools
import importlib
import marshal
import operator
import os
import pickle
import random
import struct
import subprocess
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_checkpoints import QUICK, known, whole_clip
from pickle_assembler import (
    a_dict,
    an_object,
    inner,
    loaded,
    module,
    number,
    of_tensor,
    plain,
    short,
    tensor,
    text,
    zipped,
)
from published_pickles import encoder_pickle, head_pickle, write

from adamerge_core.errors import InputError
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.published_heads import read_head

RAN = "touch ran"


@pytest.fixture(autouse=True)
def no_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder; whoever unpickles, or leaves a file there, fails."""

    def unpickle(*_: object, **__: object) -> None:
        pytest.fail("something was unpickled")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with known(monkeypatch):
        for module, name in ((pickle, "loads"), (pickle, "load"), (torch, "load")):
            monkeypatch.setattr(module, name, unpickle)
        yield
    assert not (tmp_path / "ran").exists()


def refused(path: Path, *told: str) -> None:
    started = time.monotonic()
    for reader in (lambda: read_image_tower(path, architecture=QUICK), lambda: read_head(path)):
        with pytest.raises(InputError) as caught:
            reader()
        # by the reader of pickles, not by what is done with its tensors afterwards
        assert str(caught.value).startswith(f"checkpoint {path}"), str(caught.value)
        for part in told:
            assert part in str(caught.value)
    assert time.monotonic() - started < 20


# --- calls ---


class Reduces:
    """An object whose pickle calls a function."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


def _evil() -> bytes:
    return pickle.dumps(Reduces(os.system, (RAN,)), 2)


CALLS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Reduces(os.system, (RAN,)),
    "subprocess": lambda: Reduces(subprocess.Popen, (["touch", "ran"],)),
    "eval": lambda: Reduces(builtins.eval, (f"__import__('os').system('{RAN}')",)),
    "exec": lambda: Reduces(builtins.exec, (f"import os; os.system('{RAN}')",)),
    "getattr": lambda: Reduces(builtins.getattr, (Reduces(importlib.import_module, ("os",)), "x")),
    "attrgetter": lambda: Reduces(operator.attrgetter, ("system",)),
    "methodcaller": lambda: Reduces(operator.methodcaller, ("system", RAN)),
    "partial": lambda: functools.partial(os.system, RAN),
    "map": lambda: Reduces(map, (os.system, [RAN])),
    "a function's code": lambda: Reduces(marshal.loads, (marshal.dumps((lambda: 0).__code__),)),
    "pickle.loads": lambda: Reduces(pickle._loads, (_evil(),)),
    "torch's loader of bytes": lambda: Reduces(torch.storage._load_from_bytes, (_evil(),)),
    "setattr": lambda: Reduces(builtins.setattr, (torch.nn.Module, "x", os.system)),
    "a state setter": lambda: Reduces(torch.nn.Identity, (), {"a": 1}, None, None, os.system),
    "a function among the attributes": lambda: os.system,
    "a class among the attributes": lambda: subprocess.Popen,
    "an object of another class": lambda: Path("x"),
    "a module of another class": lambda: torch.nn.Dropout(),
    "an object of its state": lambda: types.SimpleNamespace(a=1),
}


@pytest.mark.parametrize("plain", [None, 3, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_a_module_that_calls_is_refused(tmp_path: Path, name: str, plain: int | None) -> None:
    """As an attribute of a head that is a published one in all else."""
    content = head_pickle(torch.ones(3, 16), plain=plain, hook=CALLS[name]())
    refused(write(tmp_path / "head.pt", content))


def test_all_foreign_classes_are_listed(tmp_path: Path) -> None:
    hooks = [torch.nn.Dropout(), os.system, types.SimpleNamespace, torch.nn.ReLU()]
    refused(
        write(tmp_path / "head.pt", head_pickle(torch.ones(3, 16), hooks=hooks)),
        "torch.nn.modules.dropout.Dropout",
        "torch.nn.modules.activation.ReLU",
        "types.SimpleNamespace",
        f"{os.system.__module__}.system",
    )


# --- instructions, written by hand ---


SYSTEM = b"cos\nsystem\n"

INSTRUCTIONS: dict[str, bytes] = {
    "a chain of getattr": module(
        a=b"cbuiltins\ngetattr\ncbuiltins\n__import__\n"
        + text("os")
        + b"\x85R"
        + text("system")
        + b"\x86R"
        + text(RAN)
        + b"\x85R"
    ),
    "a chain of getattr from a known class": module(
        a=b"cbuiltins\ngetattr\ncsrc.modeling\nImageEncoder\n" + text("__init__") + b"\x86R"
    ),
    "a stack global": module(a=short("os") + short("system") + b"\x93" + text(RAN) + b"\x85R"),
    "a stack global of memoised halves": module(
        a=short("os") + b"\x940" + short("system") + b"\x940h\x00h\x01\x93"
    ),
    "a stack global that is built": module(a=b"](" + short("os") + b"e" + short("x") + b"\x93"),
    "a dotted name of a known module": module(a=b"csrc.modeling\nImageEncoder.__init__\n"),
    "a dotted name to a module": module(a=b"ctorch\nserialization.os.system\n"),
    "a new object of a function": module(a=SYSTEM + text(RAN) + b"\x85\x81"),
    "a new object with arguments": module(a=b"ctorch.nn.modules.linear\nLinear\nK\x01\x85\x81"),
    "a new object with keywords": module(a=b"ctorch.nn.modules.linear\nLinear\n)}\x92"),
    "a call of a known class": module(a=b"ctorch.nn.modules.linear\nLinear\n)R"),
    "an object of protocol 0": module(a=b"(" + text(RAN) + b"ios\nsystem\n"),
    "an object of protocol 1": module(a=b"(" + SYSTEM + text(RAN) + b"o"),
    "an extension": module(a=b"\x82\x01"),
    "a persistent id of protocol 0": module(a=b"Pos.system\n"),
    "a persistent id that is no storage": module(a=text("x") + b"Q"),
    "a module in the older form": module(
        a=b"(" + text("module") + SYSTEM + text("a.py") + text("code") + b"tQ"
    ),
    "a setstate among the attributes": module(__setstate__=SYSTEM),
    "a reduce among the attributes": module(__reduce__=SYSTEM + text(RAN) + b"\x86"),
    "a class whose attributes are set": module(
        a=b"ctorch.nn.modules.linear\nLinear\n" + a_dict(forward=SYSTEM) + b"b"
    ),
    "slots beside the attributes": module(a=an_object()[:-1] + b"}\x86b"),
    "attributes set twice": module(a=an_object(b=b"N") + a_dict(c=b"N") + b"b"),
    "attributes that are a tuple": module(a=b"csrc.modeling\nImageEncoder\n)\x81NN\x86b"),
    "a function in place of a tensor": of_tensor(SYSTEM),
    "a text in place of a tensor": of_tensor(text("x")),
    "a tensor's hook": of_tensor(
        tensor()[:-2].replace(b"\x89ccollections\nOrderedDict\n)R", b"\x89" + SYSTEM) + b"tR"
    ),
    "parameters that are a list": module(_parameters=b"]"),
    "modules that are tensors": module(_modules=a_dict(a=tensor())),
    "buffers that are left out by a number": module(_non_persistent_buffers_set=b"K\x01"),
    "a name that is a number": module(_parameters=b"}K\x01" + tensor() + b"s"),
    "an empty name": module(_parameters=b"}" + text("") + tensor() + b"s"),
    "a storage that is not there": of_tensor(tensor(key="7")),
    "a storage of another folder": of_tensor(tensor(key="../data.pkl")),
    "a storage of 10^12 entries": of_tensor(tensor(count=10**12)),
    "a storage of -4 entries": of_tensor(tensor(count=-4)),
    "a storage that is a function": of_tensor(tensor(kind="os\nsystem")),
    "strides of 10^12": of_tensor(tensor(strides=number(10**12) + b"\x85")),
    "strides of 2^63": of_tensor(tensor(strides=number(2**63) + b"\x85")),
    "strides of -1": of_tensor(tensor(strides=number(-1) + b"\x85")),
    "strides of 0": of_tensor(tensor(strides=b"K\x00\x85")),
    "an offset of 10^12": of_tensor(tensor(offset=10**12)),
    "a shape of 10^12": of_tensor(tensor(shape=number(10**12) + b"\x85")),
    "a shape of 10^6 by 10^6": of_tensor(
        tensor(shape=number(10**6) + number(10**6) + b"\x86", strides=b"K\x00K\x00\x86")
    ),
    "a loader of bytes in an archive": of_tensor(
        tensor(storage=b"ctorch.storage\n_load_from_bytes\nC\x03abc\x85R")
    ),
    "bytes of 2^60": module(a=b"\x8e" + struct.pack("<Q", 2**60)),
    "bytes of 2^63": module(a=b"\x8e" + struct.pack("<Q", 2**63)),
    "bytes of 4 GB": module(a=b"B" + struct.pack("<I", 2**32 - 1)),
    "a text of 2^60": module(a=b"\x8d" + struct.pack("<Q", 2**60)),
    "a memo that is not there": module(a=b"h\x63"),
    "a module in itself": b"\x80\x02csrc.modeling\nImageEncoder\n)\x81q\x00"
    + a_dict(_modules=a_dict(a=b"h\x00"))
    + b"b.",
    "modules doubled 60 times": b"\x80\x02"
    + an_object(a=b"N")
    + b"q\x00"
    + b"".join(an_object(_modules=a_dict(a=b"h\x00", b=b"h\x00")) + b"q\x00" for _ in range(60))
    + b".",
    "lists doubled 60 times, in a module": module(
        a=b"]q\x00" + b"(h\x00h\x00lq\x00" * 60 + b"0" * 60, _modules=b"]"
    ),
    "modules nested 10,000 times": b"\x80\x02"
    + b"csrc.modeling\nImageEncoder\n)\x81}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00a" * 10_000
    + an_object(a=b"N")
    + b"ssb" * 10_000
    + b".",
    "a name of a megabyte, a thousand times": module(
        _modules=b"}("
        + b"".join(
            text(f"m{n}")
            + an_object(
                _parameters=b"}"
                + (text("x" * 10**6) + b"q\x09" if n == 0 else b"h\x09")
                + tensor()
                + b"s"
            )
            for n in range(1000)
        )
        + b"u"
    ),
    "one table of tensors for 10,000 modules": module(
        _modules=b"}("
        + b"".join(
            text(f"m{n}")
            + an_object(
                _parameters=(
                    b"}(" + b"".join(text(f"t{k}") + tensor() for k in range(300)) + b"uq\x09"
                    if n == 0
                    else b"h\x09"
                )
            )
            for n in range(10_000)
        )
        + b"u"
    ),
    "three million instructions": module(a=b"N0" * 1_500_000 + b"N"),
    "no end": module()[:-1],
    "nothing after the first instruction": b"\x80\x02",
    "two values": b"\x80\x02" + an_object() + b"N.",
    "a class alone": b"\x80\x02csrc.modeling\nImageEncoder\n.",
    "a text alone": b"\x80\x02" + text("src.modeling ImageEncoder") + b".",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_are_refused(tmp_path: Path, name: str) -> None:
    refused(write(tmp_path / "zip.pt", zipped(INSTRUCTIONS[name])))
    refused(write(tmp_path / "plain.pt", INSTRUCTIONS[name]))


# --- storages in plain pickles: files of torch's older form among the bytes ---


def test_the_good_inner_storage_is_read(tmp_path: Path) -> None:
    """So that what is refused below is refused for what is wrong with it."""
    path = write(tmp_path / "plain.pt", plain(loaded(inner())))
    with pytest.raises(InputError, match=f"none of its tensors is one of {QUICK}'s: weight"):
        read_image_tower(path, architecture=QUICK)


INNER: dict[str, bytes] = {
    "an evil pickle": plain(loaded(pickle.dumps(Reduces(os.system, (RAN,)), 2))),
    "an evil pickle after the start": plain(loaded(inner(SYSTEM + text(RAN) + b"\x85R"))),
    "evil keys": plain(loaded(inner(keys=SYSTEM + text(RAN) + b"\x85R"))),
    "an archive": plain(loaded(zipped(b"\x80\x02}."))),
    "a loader in the loader": plain(loaded(inner(loaded(inner())))),
    "an object": plain(loaded(inner(an_object()))),
    "a dict": plain(loaded(inner(b"}"))),
    "a tensor": plain(loaded(inner(tensor(key="9")))),
    "a storage of 10^12 entries": plain(loaded(inner(count=10**12))),
    "a storage of -4 entries": plain(loaded(inner(count=-4))),
    "more bytes": plain(loaded(inner(end=b"more"))),
    "fewer bytes": plain(loaded(inner()[:-1])),
    "no bytes": plain(loaded(b"")),
    "a text": plain(b"ctorch.storage\n_load_from_bytes\n" + text("abc") + b"\x85R"),
    "nothing": plain(b"ctorch.storage\n_load_from_bytes\n)R"),
    "another key": plain(loaded(inner(keys=b"]" + text("8") + b"a"))),
    "a key twice": plain(loaded(inner(keys=b"](" + text("9") * 2 + b"e"))),
    "strides of 10^12": plain(loaded(inner()), strides=number(10**12) + b"\x85"),
    "a shape of 10^12": plain(loaded(inner()), shape=number(10**12) + b"\x85"),
    "one storage for 100 tensors": module(
        _parameters=b"}("
        + b"".join(
            text(f"t{n}")
            + tensor(
                count=10**5,
                shape=number(10**5) + b"\x85",
                storage=b"h\x05" if n else loaded(inner(count=10**5, floats=10**5)) + b"q\x05",
            )
            for n in range(100)
        )
        + b"u"
    ),
    "bytes after the pickle": plain(loaded(inner())) + b"more",
}


@pytest.mark.parametrize("name", INNER)
def test_inner_storages_are_refused(tmp_path: Path, name: str) -> None:
    refused(write(tmp_path / "plain.pt", INNER[name]))


# --- damage ---


@pytest.mark.parametrize("plain", [None, 4])
def test_damaged_modules_are_refused_or_read(tmp_path: Path, plain: int | None) -> None:
    good, drawn = encoder_pickle(whole_clip(0), plain=plain), random.Random(0)
    path = tmp_path / "finetuned.pt"
    for number_of in range(120):
        content = bytearray(good)
        # where the instructions and an archive's directory are
        for _ in range(drawn.choice((1, 3))):
            content[drawn.randrange(12_000) * drawn.choice((1, -1))] = drawn.randrange(256)
        if number_of % 3 == 0:
            del content[drawn.randrange(len(content)) :]
        path.write_bytes(content)
        with suppress(InputError):
            read_image_tower(path, architecture=QUICK)
