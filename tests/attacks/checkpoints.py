"""Room: files that say that they are checkpoints, and objects that say that they are models."""

import io
import json
import math
import os
import pickle
import random
import socket
import stat
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from tests.attacks.cases import Case, FaultError, refused

MUTATIONS = 100
"""In a batch."""

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


def cases() -> Iterator[Case]:
    """Give every case of the room."""
    yield from _special_files()
    yield from _malicious_pickles()
    yield from _lying_pickles()
    yield from _archives()
    yield from _headers()
    yield from _names()
    yield from _tensors_in_files()
    yield from _good_files()
    yield from _objects()
    yield from _mutations()


def load(path: Path | str) -> Any:
    return checkpoints.load(path)


def _file(name: str, make: Callable[[], bytes], *told: str, severity: Any = "medium") -> Case:
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


# --- what is no regular file ---


def _special_files() -> Iterator[Case]:
    def fifo(path: Path) -> None:
        os.mkfifo(path)

    def a_socket(path: Path) -> None:
        socket.socket(socket.AF_UNIX).bind(path.name)

    makers: dict[str, tuple[Callable[[Path], Any], str]] = {
        "a named pipe": (fifo, "a named pipe"),
        "a folder": (Path.mkdir, "a folder"),
        "a socket": (a_socket, "a socket"),
        "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "a device"),
        "a link to /dev/random": (lambda path: path.symlink_to("/dev/random"), "a device"),
        "a link to /dev/stdin": (_linked_pipe, "a named pipe"),
        "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
        "a link to nothing": (lambda path: path.symlink_to("gone"), "a link to nothing"),
        "nothing": (lambda path: None, "no such file"),
    }
    readers: dict[str, Callable[[Path], Any]] = {
        "load": load,
        "read_metadata": checkpoints.read_metadata,
        "TaskVectors.open": lambda path: TaskVectors.open(STATE, {"a": path}),
        "TaskVectors.from_checkpoint_files": lambda path: TaskVectors.from_checkpoint_files(
            STATE, {"a": path}, {"a": path.with_suffix(".out")}
        ),
    }
    for suffix in (".safetensors", ".pt"):
        for name, (make, told) in makers.items():
            for reader, read in readers.items():

                def run(folder: Path, make=make, told=told, read=read, suffix=suffix) -> None:  # type: ignore[no-untyped-def]
                    path = folder / f"model{suffix}"
                    make(path)
                    refused(lambda: read(path), told, str(path))

                yield Case(f"special: {name} as {suffix} by {reader}", run, "high", seconds=10)


def _linked_pipe(path: Path) -> None:
    os.mkfifo("pipe")
    path.symlink_to("pipe")


# --- pickles that run code ---


class Reduces:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> Any:
        return self._made


WITNESS = "touch ran"


def _malicious_pickles() -> Iterator[Case]:
    import builtins
    import codecs
    import importlib
    import operator
    import runpy
    import shutil
    import subprocess
    import webbrowser

    calls = {
        "os.system": Reduces(os.system, WITNESS),
        "subprocess.call": Reduces(subprocess.call, ["touch", "ran"]),
        "subprocess.Popen": Reduces(subprocess.Popen, ["touch", "ran"]),
        "eval": Reduces(eval, "open('ran', 'w')"),
        "exec": Reduces(exec, "open('ran', 'w')"),
        "open": Reduces(open, "ran", "w"),
        "Path.touch": Reduces(Path.touch, Path("ran")),
        "getattr": Reduces(getattr, "text", "upper"),
        "import_module": Reduces(importlib.import_module, "antigravity"),
        "__import__": Reduces(builtins.__import__, "this"),
        "runpy": Reduces(runpy.run_path, "x.py"),
        "pickle.loads": Reduces(pickle.loads, pickle.dumps(Reduces(os.system, WITNESS))),
        "torch.load": Reduces(torch.load, "model.ckpt"),
        "torch.hub.load": Reduces(torch.hub.load, "a/b", "c"),
        "torch.utils.cpp_extension": Reduces(torch.jit.load, "x"),
        "numpy.load": Reduces(np.load, "x"),
        "numpy.frombuffer": Reduces(np.frombuffer, b"1234"),
        "operator.attrgetter": Reduces(operator.attrgetter, "system"),
        "operator.methodcaller": Reduces(operator.methodcaller, "system", "id"),
        "functools.partial": Reduces(partial, os.system, WITNESS),
        "codecs.encode": Reduces(codecs.encode, "x", "utf-8"),
        "shutil.rmtree": Reduces(shutil.rmtree, "model.ckpt"),
        "os.remove": Reduces(os.remove, "model.ckpt"),
        "os.rename": Reduces(os.rename, "model.ckpt", "ran"),
        "webbrowser.open": Reduces(webbrowser.open, "http://localhost/"),
        "print": Reduces(print, "ran"),
        "bytearray of 10 GB": Reduces(bytearray, 10**10),
        "range": Reduces(range, 10**10),
        "list of a range": Reduces(list, range(10**9)),
        "torch.Tensor of 4 TB": Reduces(torch.Tensor, 10**12),
        "torch.empty": Reduces(torch.empty, 10**12),
        "torch.ones": Reduces(torch.ones, 10**9),
        "torch.device": Reduces(torch.set_default_device, "meta"),
        "socket": Reduces(socket.create_connection, ("localhost", 1)),
        "safetensors": Reduces(safetensors.torch.load_file, "x"),
        "a class of ours": Reduces(Path, "x"),
        "a module": nn.Linear(2, 2),
        "a whole model": nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        "an array": np.ones(3),
        "a numpy scalar": np.float64(3),
        "a dtype": np.dtype("f4"),
        "a namespace": __import__("argparse").Namespace(a=1),
        "a complex number": 1j,
        "a frozenset": frozenset([1]),
        "a slice": slice(1),
        "an exception": ValueError("x"),
    }
    places: dict[str, Callable[[Any], Any]] = {
        "alone": lambda call: call,
        "as a value": lambda call: {"weight": torch.ones(2), "hook": call},
        "beside the state dict": lambda call: {"state_dict": {"w": torch.ones(2)}, "extra": call},
        "deep": lambda call: {"state_dict": OrderedDict(w=[[{"a": (call,)}]])},
    }
    for name, call in calls.items():
        for place, put in places.items():
            yield _file(
                f"a pickle that calls {name}, {place}, in a zip",
                partial(_saved, put(call)),
                severity="critical",
            )
        yield _file(
            f"a pickle that calls {name}, older form",
            partial(_saved, {"a": call}, _use_new_zipfile_serialization=False),
            severity="critical",
        )
    yield from _opcodes()
    yield from _other_containers()


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _zip(pickled: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> bytes:
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


def _opcodes() -> Iterator[Case]:
    """Pickles by hand, each an instruction or a trick of the virtual machine."""
    tricks = {
        "GLOBAL and REDUCE": b"cos\nsystem\n(X\x09\x00\x00\x00touch rantR.",
        "INST": b"(X\x09\x00\x00\x00touch ranios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX\x09\x00\x00\x00touch rano.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX\x09\x00\x00\x00touch ran\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\nX\x09\x00\x00\x00touch ran\x85}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "BUILD with a setstate": b"\x80\x02ccollections\nOrderedDict\n)R}X\x0c\x00\x00\x00"
        b"__setstate__cos\nsystem\nsbX\x09\x00\x00\x00touch ranb.",
        "PERSID": b"Pos.system\n.",
        "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x16serialization.os.system\x93"
        b"\x8c\x02id\x85R.",
        "a name of an allowed module": b"ctorch._utils\nimportlib\n.",
        "torch.storage's own loader": b"ctorch.storage\n_load_from_bytes\n(C\x03abctR.",
        "a call of a storage": b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.",
        "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
        "a call with a dict": b"\x80\x02ccollections\nOrderedDict\n}R.",
        "OrderedDict of pairs": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
        "DEFAULTDICT": b"\x80\x02ccollections\ndefaultdict\ncos\nsystem\n\x85R.",
        "READONLY_BUFFER": b"\x80\x05C\x01a\x98.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "BYTEARRAY8 of 2^60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".",
        "BINBYTES8 of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
        "BINUNICODE8 of 2^60": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
        "BINUNICODE of 4 GB": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b".",
        "FRAME of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "LONG4 of 2 GB": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "LONG4 negative": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        "INT of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
        "LONG of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n.",
        "FLOAT": b"F1e999\n.",
        "LONG_BINPUT at 2^32 - 1": b"\x80\x02Nr\xff\xff\xff\xff.",
        "BINGET of nothing": b"\x80\x02h\x07.",
        "MEMOIZE of nothing": b"\x80\x04\x94.",
        "an empty stack": b"\x80\x02.",
        "POP of nothing": b"\x80\x020.",
        "two values": b"\x80\x02NN.",
        "a mark alone": b"\x80\x02(.",
        "a mark as a value": b"\x80\x02}X\x01\x00\x00\x00a(s.",
        "no mark": b"\x80\x02Nt.",
        "APPEND to a dict": b"\x80\x02}Na.",
        "SETITEM on a list": b"\x80\x02]NNs.",
        "an odd SETITEMS": b"\x80\x02}(Nu.",
        "a key that is a list": b"\x80\x02}]Ns.",
        "a dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a state_dict in itself": b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.",
        "protocol 255": b"\x80\xff}.",
        "an unknown instruction": b"\x80\x02\xff.",
        "no end": b"\x80\x02}",
        "nothing": b"",
        "200,000 nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "200,000 nested tuples": b"\x80\x02N" + b"\x85" * 200_000 + b".",
        "a key of tuples nested 100 times, doubled": b"\x80\x02}N"
        + b"q\x00h\x00\x86" * 100
        + b"Ns.",
        "ten million Nones": b"\x80\x02(" + b"N" * 10**7 + b"t.",
        "ten million dicts": b"\x80\x02(" + b"}" * 10**7 + b"l.",
        "ten million frames": b"\x80\x04" + (b"\x95" + b"\x00" * 8) * 10**6 * 3 + b"}.",
        "a list doubled 60 times": b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * 60 + b".",
    }
    for name, pickled in tricks.items():
        yield _file(f"opcode: {name}, in a zip", partial(_zip, pickled), severity="critical")
        if pickled[:1] == b"\x80":
            yield _file(
                f"opcode: {name}, bare", lambda pickled=pickled: pickled, severity="critical"
            )
            older = _saved({}, _use_new_zipfile_serialization=False)[:137] + pickled
            yield _file(
                f"opcode: {name}, older form", lambda older=older: older, severity="critical"
            )


def _other_containers() -> Iterator[Case]:
    def tar(**members: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()

    evil = pickle.dumps(Reduces(os.system, WITNESS), 2)
    yield _file("a tar of the oldest form", lambda: tar(pickle=evil, storages=evil, tensors=evil))
    yield _file("a tar with sys_info", lambda: tar(sys_info=evil, pickle=evil, storages=b""))

    def script() -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
        return buffer.getvalue()

    def quiet_script() -> bytes:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return script()

    yield _file("a TorchScript archive", quiet_script, severity="critical")
    evil_zip = partial(_zip, evil)
    yield _file("an archive with constants", lambda: _zip(b"}.", **{"m/constants.pkl": evil}))
    yield _file("a zip of an evil pickle", evil_zip, severity="critical")
    yield _file(
        "an evil pickle of protocol 0", lambda: pickle.dumps(Reduces(os.system, WITNESS), 0)
    )
    for protocol in range(2, 6):
        yield _file(
            f"a bare evil pickle of protocol {protocol}",
            lambda protocol=protocol: pickle.dumps(Reduces(os.system, WITNESS), protocol),
            severity="critical",
        )


# --- pickles that describe what is not there ---


def _view(
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


def _lying_pickles() -> Iterator[Case]:
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
        yield _file(f"lie: {name}", partial(_zip, _view(**changes), storages), severity="high")

    def many(count: int) -> bytes:
        whole = torch.ones(100_000)
        return _saved({f"w{number}": whole for number in range(count)})

    yield _file("lie: 5,000 names for one storage", partial(many, 5000), "overlap", severity="high")
    bits = _saved({"w": torch.ones(3)}, _use_new_zipfile_serialization=False)
    for name, count in {"10^12": 10**12, "-1": -1, "2^63 - 1": 2**63 - 1, "4": 4, "2": 2}.items():
        older = bits[:-20] + struct.pack("<q", count) + bits[-12:]
        yield _file(f"lie: {name} entries, older form", lambda older=older: older, severity="high")
    yield _file("lie: more after the last storage", lambda: bits + b"\0")


# --- archives ---


def _archives() -> Iterator[Case]:
    good = _saved({"w": torch.zeros(1000)})

    def repacked(method: int, extra: bytes = b"") -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w", method) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name) + (extra if name.endswith("/0") else b""))
        return buffer.getvalue()

    for name, method in {"deflate": 8, "bzip2": 12, "lzma": 14}.items():
        yield _file(f"archive: {name}", partial(repacked, method), "compressed", severity="high")

    def bomb() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", _view(("torch", "FloatStorage", "0", 25 * 10**6)))
            archive.writestr("m/data/0", bytes(10**8))
        return buffer.getvalue()

    yield _file("archive: a bomb of 100 MB", bomb, "compressed", severity="high")

    def two_of(name: str) -> bytes:
        import warnings

        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("m/data.pkl", _view())
            archive.writestr("m/data/0", bytes(12))
            archive.writestr(name, pickle.dumps(Reduces(os.system, WITNESS), 2))
        return buffer.getvalue()

    yield _file("archive: a member twice", partial(two_of, "m/data.pkl"))
    yield _file("archive: two pickles", partial(two_of, "n/data.pkl"))
    yield _file("archive: no pickle", lambda: _only({"m/data/0": bytes(12)}))
    yield _file("archive: a pickle at its top", lambda: _only({"data.pkl": _view()}))
    yield _file("archive: empty", lambda: _only({}))
    big = {"m/data.pkl": _view(), "m/byteorder": b"big", "m/data/0": bytes(12)}
    yield _file("archive: of another byte order", lambda: _only(big), "byte order")
    for what, offset in {"size": 24, "compressed size": 20, "method": 10, "offset": 42}.items():
        for value in (0, 7, 2**31, 2**32 - 1):

            def changed(offset: int = offset, value: int = value) -> bytes:
                data = bytearray(_zip(_view(), {"0": bytes(12)}))
                last = data.rindex(b"PK\x01\x02")
                width = 2 if offset == 10 else 4
                data[last + offset : last + offset + width] = value.to_bytes(4, "little")[:width]
                return bytes(data)

            if (what, value) not in {("method", 0), ("method", 2**31)}:
                yield _file(f"archive: {what} {value} in the directory", changed, severity="high")
    wrong = bytearray(_zip(_view(), {"0": b"abcdefghijkl"}))
    wrong[wrong.index(b"abcdefghijkl")] ^= 1
    yield _file("archive: a flipped bit in a storage (CRC)", lambda: bytes(wrong))


def _only(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# --- headers of safetensors files ---


def _safetensors(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def _headers() -> Iterator[Case]:
    entry = json.dumps(_entry())
    wrong: dict[str, bytes] = {
        "a name twice": _safetensors(f'{{"a":{entry},"a":{entry}}}'.encode()),
        "shape twice": _safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}}'
        ),
        "metadata twice": _safetensors(
            f'{{"__metadata__":{{}},"__metadata__":{{"a":"b"}},"a":{entry}}}'.encode()
        ),
        "a list": _safetensors(b"[]      ", b""),
        "a text": _safetensors(b'"abcdefg"', b""),
        "no JSON": _safetensors(b"{abcdefg}"),
        "JSON and more": _safetensors(f'{{"a":{entry}}} x'.encode()),
        "UTF-16": _safetensors(f'{{"a":{entry}}}'.encode("utf-16")),
        "no UTF-8": _safetensors(b'{"\xff":' + entry.encode() + b"}"),
        "a BOM": _safetensors(b"\xef\xbb\xbf" + f'{{"a":{entry}}}'.encode()),
        "a lone surrogate": _safetensors(f'{{"\\ud800":{entry}}}'.encode()),
        "3,000 nested lists": _safetensors(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
        "100,000 nested lists": _safetensors(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
        "a number of 5,000 digits": _safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'
        ),
        "NaN": _safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
        "Infinity": _safetensors(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'),
        "metadata that is a list": _safetensors({"__metadata__": [], "a": _entry()}),
        "metadata of numbers": _safetensors({"__metadata__": {"a": 1}, "a": _entry()}),
        "metadata of dicts": _safetensors({"__metadata__": {"a": {}}, "a": _entry()}),
        "a hole": _safetensors({"a": _entry(), "b": _entry(data_offsets=[12, 20])}, bytes(20)),
        "an overlap": _safetensors({"a": _entry(), "b": _entry(data_offsets=[4, 12])}, bytes(12)),
        "one range for two": _safetensors({"a": _entry(), "b": _entry()}),
        "a start after 0": _safetensors({"a": _entry(data_offsets=[8, 16])}, bytes(16)),
        "bytes of no tensor": _safetensors({"a": _entry()}, bytes(9)),
        "too few bytes": _safetensors({"a": _entry()}, bytes(7)),
        "no tensors and bytes": _safetensors({}, bytes(1)),
        "a header longer than the file": _safetensors({"a": _entry()}, length=2**40),
        "a header of 2^63": _safetensors({"a": _entry()}, length=2**63),
        "a header of 2^64 - 1": _safetensors({"a": _entry()}, length=2**64 - 1),
        "a header of 0": _safetensors({"a": _entry()}, length=0),
        "a header of 1": _safetensors({"a": _entry()}, length=1),
        "a header cut short": _safetensors({"a": _entry()}, length=20),
        "7 bytes": b"\0" * 7,
        "8 bytes": b"\0" * 8,
        "nothing": b"",
        "zeros": bytes(1000),
    }
    for name, content in wrong.items():
        yield _file(f"header: {name}", lambda content=content: content)
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
        header = {"a": _entry(**changes)}
        yield _file(f"header: {name}", partial(_safetensors, header), "tensor a")
    for key in ("dtype", "shape", "data_offsets"):
        left = {name: value for name, value in _entry().items() if name != key}
        yield _file(f"header: without {key}", partial(_safetensors, {"a": left}), "tensor a")
    for value in (None, 1, "a", [], [1]):
        yield _file(f"header: an entry {value!r}", partial(_safetensors, {"a": value}), "tensor a")

    def huge(folder: Path) -> None:
        """A sparse file of 100 TB with a header that fits it."""
        path, size = folder / "huge.safetensors", 10**14
        header = json.dumps({"a": _entry(shape=[size // 4], data_offsets=[0, size])}).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            try:
                file.truncate(8 + len(header) + size)
            except OSError:
                return  # this file system has no such files
        refused(lambda: load(path), "memory")

    yield Case("header: a sparse file of 100 TB", huge, "high", seconds=20)


# --- names ---


def _names() -> Iterator[Case]:
    one, ones = torch.ones(2), torch.zeros(2)
    wrong: dict[str, tuple[Any, str]] = {
        "1 and '1'": ({1: one, "1": ones}, "1 is int"),
        "'1' and 1": ({"1": one, 1: ones}, "1 is int"),
        "numbers": ({0: one, 1: ones}, "is int"),
        "a float": ({1.5: one}, "is float"),
        "None": ({None: one}, "NoneType"),
        "True": ({True: one}, "bool"),
        "an accent in two ways": ({"\u00e9": one, "\u0065\u0301": ones}, "one to Unicode"),
        "Ångström's sign": ({"\u00c5": one, "\u0041\u030a": ones}, "one to Unicode"),
        "hangul": ({"\uac01": one, "\u1100\u1161\u11a8": ones}, "one to Unicode"),
        "a number under state_dict": ({"state_dict": {3: one}}, "is int"),
    }
    for name, (state, told) in wrong.items():
        for form in (True, False):
            make = partial(_saved, state, _use_new_zipfile_serialization=form)
            yield _file(f"names: {name}, {'zip' if form else 'older'}", make, told)
        if all(isinstance(key, str) for key in state) and "state_dict" not in state:
            header = {key: _entry(data_offsets=[8 * i, 8 * i + 8]) for i, key in enumerate(state)}
            make = partial(_safetensors, header, bytes(16))
            yield _file(f"names: {name}, safetensors", make, told)
    apart = {
        "a prefix": ("module.w", "w"),
        "case": ("W", "w"),
        "blanks": ("w", "w "),
        "a null": ("w", "w\0"),
        "compatibility characters": ("ﬁ", "fi"),
        "an empty name": ("", "w"),
        "a zero-width space": ("w", "w\u200b"),
        "dots": ("a.b", "a..b"),
        "a new line": ("w\n", "w"),
    }
    for name, pair in apart.items():

        def run(folder: Path, pair: tuple[str, str] = pair) -> None:
            state = {key: torch.tensor([float(i)]) for i, key in enumerate(pair)}
            torch.save(state, folder / "a.pt")
            checkpoints.save(folder / "a.safetensors", state)
            for file in ("a.pt", "a.safetensors"):
                same(load(folder / file), state)

        yield Case(f"names: told apart by {name}, both are kept", run)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise FaultError unless the tensors are those, bit by bit."""
    if sorted(found) != sorted(expected):
        raise FaultError(f"has {sorted(found)}, must have {sorted(expected)}")
    for name, tensor in expected.items():
        alike = found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        if not alike or not torch.equal(found[name], tensor):
            raise FaultError(f"{name}: {found[name]} is not {tensor}")


# --- tensors of strange kinds in files ---


def _tensors_in_files() -> Iterator[Case]:
    for name, (tensor, told) in strange_tensors().items():

        def make(tensor: Any = tensor) -> bytes:
            return _saved({"fine": torch.ones(2), "strange": tensor})

        try:
            make()
        except Exception:  # torch cannot save it
            continue
        yield _file(f"in a file: {name}", make, *told)
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


# --- files that are good ---


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


# --- objects that are no state dicts ---


def _objects() -> Iterator[Case]:
    good = {"w": torch.ones(3), "b": torch.zeros(2)}
    strange: dict[str, Any] = {name: {**good, "w": t} for name, (t, _) in strange_tensors().items()}
    strange |= {
        "no tensor": {},
        "a list of pairs": list(good.items()),
        "a module": nn.Linear(2, 2),
        "None": None,
        "a path": Path("x"),
        "a tensor": torch.ones(3),
        "a number as a name": {**good, 1: torch.ones(1)},
        "NaN": {**good, "w": torch.tensor([1.0, math.nan, 1.0])},
        "infinity": {**good, "w": torch.tensor([1.0, math.inf, 1.0])},
        "another shape": {**good, "w": torch.ones(4)},
        "another dtype": {**good, "w": torch.ones(3, dtype=torch.float64)},
        "a tensor less": {"w": torch.ones(3)},
        "a tensor more": {**good, "c": torch.ones(1)},
    }
    for name, state in strange.items():
        yield Case(
            f"object: fine-tuned is or has {name}",
            lambda _, state=state: _none(
                refused(lambda: TaskVectors.from_checkpoints(good, {"a": state}))
            ),
        )
        yield Case(
            f"object: pretrained is or has {name}",
            lambda _, state=state: _none(
                refused(lambda: TaskVectors.from_checkpoints(state, {"a": good}))
            ),
        )
    for name, given in {
        "a list": [good],
        "nothing": {},
        "None": None,
        "a number": {1: good},
    }.items():
        yield Case(
            f"object: models as {name}",
            lambda _, given=given: _none(
                refused(lambda: TaskVectors.from_checkpoints(good, given))
            ),
        )
    for name, path in {"a number": 3, "None": None, "bytes": b"x", "a list": ["x"]}.items():
        yield Case(
            f"object: a path that is {name}",
            lambda _, path=path: _none(refused(lambda: load(path), "no path")),  # type: ignore[arg-type]
        )
    yield Case(
        "object: a path with a null",
        lambda _: _none(refused(lambda: load("a\0b"), "cannot be read")),
    )
    yield Case(
        "object: a path of 10,000 characters",
        lambda _: _none(refused(lambda: load("a" * 10_000), "cannot be read")),
    )

    def unreadable(folder: Path) -> None:
        path = folder / "m.pt"
        torch.save(good, path)
        path.chmod(0)
        if os.geteuid() != 0:  # root may read it
            refused(lambda: load(path), "cannot be read")
        path.chmod(stat.S_IRUSR)
        same(load(path), good)

    yield Case("object: a file without permission", unreadable)
    for name, unchanged in {
        "no JSON": "[",
        "a text": '"w"',
        "numbers": "[1]",
        "deep": "[" * 9999,
    }.items():

        def broken(folder: Path, unchanged: str = unchanged) -> None:
            path = folder / "v.safetensors"
            checkpoints.save(path, {"w": torch.ones(3)}, {"unchanged": unchanged})
            refused(lambda: TaskVectors.open(good, {"a": path}), str(path))

        yield Case(f"object: task vectors whose unchanged layers are {name}", broken)


def _none(_: object) -> None:
    """A case returns how many things it tried, or None."""


# --- mutations ---


def _mutations() -> Iterator[Case]:
    forms: dict[str, Callable[[], bytes]] = {
        "safetensors": lambda: to_bytes({n: t.contiguous() for n, t in STATE.items()}),
        "zip": lambda: _saved(STATE),
        "older": lambda: _saved(STATE, _use_new_zipfile_serialization=False),
    }
    for form, make in forms.items():
        for batch in range(34):
            run = partial(_mutated, make=make, seed=batch)
            yield Case(f"mutations of {form}, {batch}", run, "high", seconds=120)


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
