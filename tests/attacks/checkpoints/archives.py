"""Zip archives: compressed, with members twice, with a directory that lies."""

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from functools import partial

import torch

from tests.attacks.cases import Case
from tests.attacks.checkpoints.files import WITNESS, Reduces, file_case, saved, view, zipped


def cases() -> Iterator[Case]:
    good = saved({"w": torch.zeros(1000)})

    def repacked(method: int, extra: bytes = b"") -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w", method) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name) + (extra if name.endswith("/0") else b""))
        return buffer.getvalue()

    for name, method in {"deflate": 8, "bzip2": 12, "lzma": 14}.items():
        yield file_case(
            f"archive: {name}", partial(repacked, method), "compressed", severity="high"
        )

    def bomb() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", view(("torch", "FloatStorage", "0", 25 * 10**6)))
            archive.writestr("m/data/0", bytes(10**8))
        return buffer.getvalue()

    yield file_case("archive: a bomb of 100 MB", bomb, "compressed", severity="high")

    def two_of(name: str) -> bytes:
        import warnings

        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("m/data.pkl", view())
            archive.writestr("m/data/0", bytes(12))
            archive.writestr(name, pickle.dumps(Reduces(os.system, WITNESS), 2))
        return buffer.getvalue()

    yield file_case("archive: a member twice", partial(two_of, "m/data.pkl"))
    yield file_case("archive: two pickles", partial(two_of, "n/data.pkl"))
    yield file_case("archive: no pickle", lambda: _only({"m/data/0": bytes(12)}))
    yield file_case("archive: a pickle at its top", lambda: _only({"data.pkl": view()}))
    yield file_case("archive: empty", lambda: _only({}))
    big = {"m/data.pkl": view(), "m/byteorder": b"big", "m/data/0": bytes(12)}
    yield file_case("archive: of another byte order", lambda: _only(big), "byte order")
    for what, offset in {"size": 24, "compressed size": 20, "method": 10, "offset": 42}.items():
        for value in (0, 7, 2**31, 2**32 - 1):

            def changed(offset: int = offset, value: int = value) -> bytes:
                data = bytearray(zipped(view(), {"0": bytes(12)}))
                last = data.rindex(b"PK\x01\x02")
                width = 2 if offset == 10 else 4
                data[last + offset : last + offset + width] = value.to_bytes(4, "little")[:width]
                return bytes(data)

            if (what, value) not in {("method", 0), ("method", 2**31)}:
                yield file_case(
                    f"archive: {what} {value} in the directory", changed, severity="high"
                )
    wrong = bytearray(zipped(view(), {"0": b"abcdefghijkl"}))
    wrong[wrong.index(b"abcdefghijkl")] ^= 1
    yield file_case("archive: a flipped bit in a storage (CRC)", lambda: bytes(wrong))


def _only(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
