"""Pickles that call functions, and older containers of them."""

import io
import os
import pickle
import socket
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import nn

from tests.attacks.cases import Case
from tests.attacks.checkpoints.files import WITNESS, Reduces, file_case, saved, zipped


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
            yield file_case(
                f"a pickle that calls {name}, {place}, in a zip",
                partial(saved, put(call)),
                severity="critical",
            )
        yield file_case(
            f"a pickle that calls {name}, older form",
            partial(saved, {"a": call}, _use_new_zipfile_serialization=False),
            severity="critical",
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
    yield file_case(
        "a tar of the oldest form", lambda: tar(pickle=evil, storages=evil, tensors=evil)
    )
    yield file_case("a tar with sys_info", lambda: tar(sys_info=evil, pickle=evil, storages=b""))

    def script() -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
        return buffer.getvalue()

    def quiet_script() -> bytes:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return script()

    yield file_case("a TorchScript archive", quiet_script, severity="critical")
    evil_zip = partial(zipped, evil)
    yield file_case("an archive with constants", lambda: zipped(b"}.", **{"m/constants.pkl": evil}))
    yield file_case("a zip of an evil pickle", evil_zip, severity="critical")
    yield file_case(
        "an evil pickle of protocol 0", lambda: pickle.dumps(Reduces(os.system, WITNESS), 0)
    )
    for protocol in range(2, 6):
        yield file_case(
            f"a bare evil pickle of protocol {protocol}",
            lambda protocol=protocol: pickle.dumps(Reduces(os.system, WITNESS), protocol),
            severity="critical",
        )


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _malicious_pickles()
    yield from _other_containers()
