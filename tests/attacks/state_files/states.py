"""State files with a right checksum over a wrong content."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks
from torch import Tensor

from adamerge_core import checkpoints, state_files
from adamerge_core.state_files import StateFileError
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.state_files.models import CHOSEN, Problem, coefficients, interrupted


def cases() -> Iterator[Case]:
    """Files with a right checksum over a wrong content."""
    whole = {"first.weight": torch.ones(2)}

    def edited(change: Callable[[state_files.State], state_files.State], told: str) -> Any:
        def run(folder: Path) -> None:
            early = replace(CHOSEN, held_out_share=0.3, measure_every=2)
            problem, path = interrupted(folder, early)
            state_files.save(path, change(state_files.read(path)))
            before = path.read_bytes()
            error = refused(lambda: problem.adapt(early, resume_from=path), told, str(path))
            if not isinstance(error, StateFileError) or path.read_bytes() != before:
                raise FaultError(f"is {type(error)}, or the file was changed")

        return run

    def tensors(**changed: Tensor | None) -> Callable[[state_files.State], state_files.State]:
        def change(state: state_files.State) -> state_files.State:
            merged = state.tensors | changed
            return replace(state, tensors={n: t for n, t in merged.items() if t is not None})

        return change

    def facts(**changed: Any) -> Callable[[state_files.State], state_files.State]:
        return lambda state: replace(state, facts=state.facts | changed)

    def record(**changed: Any) -> Callable[[state_files.State], state_files.State]:
        return lambda state: replace(
            state,
            facts=state.facts | {"early_stopping": state.facts["early_stopping"] | changed},
        )

    def run_of(**changed: Any) -> Callable[[state_files.State], state_files.State]:
        return lambda state: replace(state, run=state.run | changed)

    shape = (4, 2)
    nan = torch.full(shape, math.nan, dtype=torch.float64)
    changes: dict[str, tuple[Any, str]] = {
        "step 0": (lambda s: replace(s, step=0), "step = 0"),
        "step -1": (lambda s: replace(s, step=-1), "step = -1"),
        "the last step": (lambda s: replace(s, step=6), "step = 6"),
        "step 10^30": (lambda s: replace(s, step=10**30), "step = 1"),
        "step 2.5": (lambda s: replace(s, step=2.5), "no state of a run"),
        "step true": (lambda s: replace(s, step=True), "no state of a run"),
        "step as text": (lambda s: replace(s, step="3"), "no state of a run"),
        "step null": (lambda s: replace(s, step=None), "no state of a run"),
        "another step than Adam's": (lambda s: replace(s, step=2), "Adam has done"),
        "a run that is a list": (lambda s: replace(s, run=[]), "no state of a run"),
        "facts that are a list": (lambda s: replace(s, facts=[]), "no state of a run"),
        "no facts": (lambda s: replace(s, facts={}), "precision"),
        "a fact more": (facts(more=1), "nothing else"),
        "a precision auto8": (facts(precision="auto8"), "precision = 'auto8'"),
        "a precision null": (facts(precision=None), "precision = None"),
        "a precision that is a list": (facts(precision=["float32"]), "precision"),
        "another precision": (facts(precision="bfloat16"), "bfloat16 in the file"),
        "no record of early stopping": (facts(early_stopping=None), "early stopping must have"),
        "a record that is a list": (facts(early_stopping=[1, 2, 3]), "early stopping must have"),
        "a record with more": (record(more=1), "nothing else"),
        "a best entropy NaN": (record(best_entropy=math.nan), "best_entropy"),
        "a best entropy infinity": (record(best_entropy=math.inf), "best_entropy"),
        "a best entropy as text": (record(best_entropy="1"), "best_entropy"),
        "a best entropy true": (record(best_entropy=True), "best_entropy"),
        "a best step 2.5": (record(best_step=2.5), "best_step"),
        "a best step beyond": (record(best_step=99), "best_step"),
        "a best step -1": (record(best_step=-1), "best_step"),
        "10^30 measurements": (record(measured_since=10**30), "measured_since"),
        "an extra tensor": (tensors(more=torch.ones(1)), "tensor more is extra"),
        "no moments": (tensors(exp_avg=None), "tensor exp_avg is missing"),
        "no parameters": (tensors(parameters=None), "tensor parameters is missing"),
        "no best parameters": (tensors(best_parameters=None), "best_parameters is missing"),
        "no step of Adam's": (tensors(step=None), "tensor step is missing"),
        "parameters of another shape": (tensors(parameters=nan[:2] * 0 + 1), "must be"),
        "parameters of another number of dimensions": (
            tensors(parameters=torch.ones(8, dtype=torch.float64)),
            "must be",
        ),
        "parameters in float32": (tensors(parameters=torch.ones(shape)), "must be torch.float64"),
        "parameters in int64": (
            tensors(parameters=torch.ones(shape, dtype=torch.int64)),
            "must be torch.float64",
        ),
        "parameters NaN": (tensors(parameters=nan), "not finite"),
        "parameters infinite": (tensors(parameters=nan.nan_to_num(math.inf)), "not finite"),
        "moments NaN": (tensors(exp_avg=nan), "not finite"),
        "second moments NaN": (tensors(exp_avg_sq=nan), "not finite"),
        "second moments below 0": (
            tensors(exp_avg_sq=-torch.ones(shape, dtype=torch.float64)),
            "negative",
        ),
        "best parameters NaN": (tensors(best_parameters=nan), "not finite"),
        "Adam's step NaN": (tensors(step=torch.tensor(math.nan)), "not finite"),
        "Adam's step 2.5": (tensors(step=torch.tensor(2.5)), "Adam has done 2.5"),
        "another seed": (run_of(seed=1), "seed is 1 in the file, 0 here"),
        "a seed as text": (run_of(seed="0"), "seed"),
        "another learning rate": (run_of(learning_rate=1.0), "learning_rate is 1.0"),
        "another clamp": (run_of(clamp="none"), "clamp is none"),
        "another number of layers": (run_of(layers=5), "layers is 5"),
        "other tasks": (run_of(task_names=["a", "b"]), "task_names"),
        "a setting more": (run_of(more=1), "more is 1 in the file, nothing here"),
        "other images": (run_of(images={"digits": 20, "letters": 21}), "images is"),
        "another hash": (run_of(**{"hash of the task vectors": "0" * 16}), "hash of the task"),
    }
    for name, (change, told) in changes.items():
        yield Case(f"a state with {name}", edited(change, told))
    contents: dict[str, Callable[[Path], Any]] = {
        "a checkpoint": lambda path: checkpoints.save(path, whole),
        "a checkpoint with other texts": lambda path: checkpoints.save(
            path, whole, {"state": "{}"}
        ),
        "a seal that is no JSON": lambda path: checkpoints.save(path, whole, {"sealed": "{"}),
        "a seal that is a list": lambda path: checkpoints.save(path, whole, {"sealed": "[]"}),
        "a seal that is nested": lambda path: checkpoints.save(
            path, whole, {"sealed": "[" * 10**5}
        ),
        "a seal without content": lambda path: checkpoints.save(
            path, whole, {"sealed": '{"blake2b":"0"}'}
        ),
        "a seal of null": lambda path: checkpoints.save(
            path, whole, {"sealed": '{"blake2b":null,"content":null}'}
        ),
        "a torch file": lambda path: torch.save(whole, path),
        "coefficients": lambda path: coefficients().save(path),
        "a text": lambda path: path.write_text("step: 3"),
        "nothing": lambda path: path.write_bytes(b""),
        "a folder": Path.mkdir,
        "a link to nothing": lambda path: path.symlink_to("gone"),
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    }
    for name, write in contents.items():

        def run(folder: Path, write: Callable[[Path], Any] = write) -> None:
            path = folder / "state.safetensors"
            write(path)
            refused(lambda: Problem().adapt(resume_from=path), str(path))

        yield Case(f"as a state file: {name}", run, seconds=20)
