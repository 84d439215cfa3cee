"""Objects that are no state dicts."""

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.task_vectors import TaskVectors
from tests.attacks.cases import Case, refused, refuses
from tests.attacks.checkpoints.files import load, same
from tests.attacks.checkpoints.tensors import strange_tensors


def cases() -> Iterator[Case]:
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
            lambda _, state=state: refuses(
                lambda: TaskVectors.from_checkpoints(good, {"a": state})
            ),
        )
        yield Case(
            f"object: pretrained is or has {name}",
            lambda _, state=state: refuses(
                lambda: TaskVectors.from_checkpoints(state, {"a": good})
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
            lambda _, given=given: refuses(lambda: TaskVectors.from_checkpoints(good, given)),
        )
    for name, path in {"a number": 3, "None": None, "bytes": b"x", "a list": ["x"]}.items():
        yield Case(
            f"object: a path that is {name}",
            lambda _, path=path: refuses(lambda: load(path), "no path"),  # type: ignore[arg-type]
        )
    yield Case(
        "object: a path with a null",
        lambda _: refuses(lambda: load("a\0b"), "cannot be read"),
    )
    yield Case(
        "object: a path of 10,000 characters",
        lambda _: refuses(lambda: load("a" * 10_000), "cannot be read"),
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
