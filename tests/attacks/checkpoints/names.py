"""Names of tensors: no texts, one twice, and those that are to be told apart."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adamerge_core import checkpoints
from tests.attacks.cases import Case
from tests.attacks.checkpoints.files import file_case, load, same, saved
from tests.attacks.checkpoints.headers import header_entry, with_header


def cases() -> Iterator[Case]:
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
            make = partial(saved, state, _use_new_zipfile_serialization=form)
            yield file_case(f"names: {name}, {'zip' if form else 'older'}", make, told)
        if all(isinstance(key, str) for key in state) and "state_dict" not in state:
            header = {
                key: header_entry(data_offsets=[8 * i, 8 * i + 8]) for i, key in enumerate(state)
            }
            make = partial(with_header, header, bytes(16))
            yield file_case(f"names: {name}, safetensors", make, told)
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
