"""Mutations of state files, of coefficient files, and of the lines of a curve."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks

from adamerge_core import state_files
from adamerge_core.coefficient_files import read_arrays
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import SafetensorsFile
from tasks.shared.resumable_rows import ResumableRows
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.checkpoints.mutations import mutate
from tests.attacks.state_files.models import CHOSEN, coefficients, interrupted

MUTATIONS = 200
"""In a batch."""


def cases() -> Iterator[Case]:
    tries: dict[str, Callable[[Path], int]] = {}
    for batch in range(25):
        tries[f"mutations of a state file, {batch}"] = partial(_mutated_state, seed=batch)
        tries[f"mutations of coefficients, {batch}"] = partial(_mutated_values, seed=batch)
    tries["every bit of a state file's tensors"] = _every_bit
    tries["lines of a curve"] = _mutated_rows
    for name, run in tries.items():
        yield Case(name, run, mutations=True)


def _mutated_state(folder: Path, seed: int) -> int:
    early = replace(CHOSEN, held_out_share=0.3, measure_every=2)
    _, path = interrupted(folder, early if seed % 2 else CHOSEN)
    known = state_files.read(path)

    def alike(path: Path) -> bool:
        found = state_files.read(path)
        return (found.run, found.step, found.facts) == (known.run, known.step, known.facts) and (
            found.tensors.keys() == known.tensors.keys()
            and all(torch.equal(found.tensors[n], t) for n, t in known.tensors.items())
        )

    return _refused_or_alike(path, alike, seed)


def _mutated_values(folder: Path, seed: int) -> int:
    path = folder / "coefficients.safetensors"
    coefficients().save(path)
    values, layers, tasks = read_arrays(path)

    def alike(path: Path) -> bool:
        found = read_arrays(path)
        return np.array_equal(found[0], values) and found[1:] == (layers, tasks)

    return _refused_or_alike(path, alike, seed)


def _refused_or_alike(path: Path, alike: Callable[[Path], bool], seed: int) -> int:
    """Damage a file in many ways: what is not refused must be what it was."""
    rng, whole = random.Random(seed), path.read_bytes()
    for _ in range(MUTATIONS):
        data = mutate(rng, whole)
        path.write_bytes(data)
        try:
            if not alike(path):
                raise FaultError(f"taken, though changed: {data!r}")
        except InputError as error:
            if data == whole:
                raise FaultError(f"refused, though whole: {error}") from error
    return MUTATIONS


def _every_bit(folder: Path) -> int:
    _, path = interrupted(folder)
    whole = path.read_bytes()
    first = min(each.start for each in SafetensorsFile(path).entries.values())
    for at in range(first, len(whole)):
        for bit in (0, 3, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            refused(lambda: state_files.read(path), "checksum")
    return 3 * (len(whole) - first)


def _mutated_rows(folder: Path) -> int:
    """Rows of a curve are those that were written, or none from the first damaged line on."""
    rows = ResumableRows(folder, "curve")
    for step in range(6):
        rows.append({"step": step, "loss": step / 3})
    path, known = folder / "curve.jsonl", rows.rows
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(rng, whole))
        again = ResumableRows(folder, "curve")
        again.append({"step": 99, "loss": 0.0})
        kept = again.rows[:-1]
        if any(row not in known for row in kept):
            raise FaultError(f"rows of its own: {kept}")
        path.write_bytes(whole)
    return MUTATIONS
