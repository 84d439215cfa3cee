"""Room: state and coefficient files, settings, and adaptations that go wrong in the middle."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks
from torch import Tensor, nn

from adamerge_core import checkpoints, state_files
from adamerge_core.adamerging import AdaptationSettings, Engine, adapt, expert_targets
from adamerge_core.adamerging.non_finite import NonFiniteError
from adamerge_core.analysis import cosine_matrix, l2_norms
from adamerge_core.coefficient_files import LearnedCoefficients, read_arrays
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct
from adamerge_core.merging import BEFORE, RULES
from adamerge_core.safetensors_files import SafetensorsFile, seal
from adamerge_core.state_files import StateFileError
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.task_vectors import TaskVectors
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.resuming import resumed
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.checkpoints import mutate, strange_tensors

MUTATIONS = 200
"""In a batch."""

TASKS = {"digits": 3, "letters": 4}
CHOSEN = AdaptationSettings(steps=6, images_per_task=3, batches_per_step=1, learning_rate=0.03)


def cases() -> Iterator[Case]:
    """Give every case of the room."""
    yield from _mutations()
    yield from _state_schemas()
    yield from _coefficient_schemas()
    yield from _set_aside()
    yield from _settings()
    yield from _parameters()
    yield from _merges()
    yield from _middles()
    yield from _inputs()


class Problem:
    """An encoder of two layers, two tasks, their heads and images, all of float32."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.encoder = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
        self.pretrained = {n: t.clone() for n, t in self.encoder.state_dict().items()}
        self.models = {
            name: {n: t + torch.randn_like(t) * 0.3 for n, t in self.pretrained.items()}
            for name in TASKS
        }
        self.vectors = TaskVectors.from_checkpoints(self.pretrained, self.models)
        self.heads: dict[str, nn.Module] = {name: nn.Linear(4, n) for name, n in TASKS.items()}
        self.images = {name: torch.randn(20, 5) for name in TASKS}
        self.labels = {name: torch.arange(20) % n for name, n in TASKS.items()}

    def engine(self, **options: Any) -> Engine:
        return Engine(self.encoder, self.vectors, self.heads, precision="float32", **options)

    def adapt(self, settings: AdaptationSettings = CHOSEN, **options: Any) -> list[Any]:
        return list(adapt(self.engine(), self.images, settings, 0, **options))


def _state(folder: Path, settings: AdaptationSettings = CHOSEN) -> tuple[Problem, Path]:
    """A problem, and a state file of it after all steps but one."""
    problem, path = Problem(), folder / "state.safetensors"
    problem.adapt(settings, resume_from=path, save_every=1)
    return problem, path


def _none(_: object) -> None:
    """A case returns how many things it tried, or None."""


# --- mutations ---


def _mutations() -> Iterator[Case]:
    for batch in range(25):
        yield Case(f"mutations of a state file, {batch}", partial(_mutated_state, seed=batch))
        yield Case(f"mutations of coefficients, {batch}", partial(_mutated_values, seed=batch))
    yield Case("every bit of a state file's tensors", _every_bit)
    yield Case("lines of a curve", _mutated_rows)


def _mutated_state(folder: Path, seed: int) -> int:
    early = replace(CHOSEN, held_out_share=0.3, measure_every=2)
    _, path = _state(folder, early if seed % 2 else CHOSEN)
    known = state_files.read(path)

    def alike(path: Path) -> bool:
        found = state_files.read(path)
        return (found.run, found.step, found.facts) == (known.run, known.step, known.facts) and (
            found.tensors.keys() == known.tensors.keys()
            and all(torch.equal(found.tensors[n], t) for n, t in known.tensors.items())
        )

    return _refused_or_alike(path, alike, seed)


def _values() -> LearnedCoefficients:
    values = torch.linspace(-0.5, 1.5, 12, dtype=torch.float64).reshape(4, 3)
    return LearnedCoefficients(values, ("a", "b", "é", "d"), ("x", "y", "z"))


def _mutated_values(folder: Path, seed: int) -> int:
    path = folder / "coefficients.safetensors"
    _values().save(path)
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
    _, path = _state(folder)
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


# --- contents that a checksum fits ---


def _state_schemas() -> Iterator[Case]:
    """Files with a right checksum over a wrong content."""
    whole = {"first.weight": torch.ones(2)}

    def edited(change: Callable[[state_files.State], state_files.State], told: str) -> Any:
        def run(folder: Path) -> None:
            early = replace(CHOSEN, held_out_share=0.3, measure_every=2)
            problem, path = _state(folder, early)
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
        "coefficients": lambda path: _values().save(path),
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


def _coefficient_schemas() -> Iterator[Case]:
    values = np.linspace(0, 1, 6).reshape(2, 3)
    names = {"layers": ["a", "b"], "tasks": ["x", "y", "z"]}
    wrong: dict[str, tuple[np.ndarray, Any]] = {
        "NaN": (np.full((2, 3), np.nan), names),
        "infinity": (np.full((2, 3), np.inf), names),
        "float32": (values.astype(np.float32), names),
        "whole numbers": (values.astype(np.int64), names),
        "another shape": (values.T.copy(), names),
        "one dimension": (values.reshape(-1), names),
        "three dimensions": (values.reshape(2, 3, 1), names),
        "a layer less": (values, {**names, "layers": ["a"]}),
        "a task more": (values, {**names, "tasks": ["x", "y", "z", "w"]}),
        "a layer twice": (values, {**names, "layers": ["a", "a"]}),
        "a task twice": (values, {**names, "tasks": ["x", "y", "y"]}),
        "layers as numbers": (values, {**names, "layers": [1, 2]}),
        "layers as text": (values, {**names, "layers": "ab"}),
        "layers null": (values, {**names, "layers": None}),
        "no tasks": (values, {"layers": ["a", "b"]}),
        "more names": (values, {**names, "more": []}),
        "names as a list": (values, [["a", "b"], ["x", "y", "z"]]),
        "names null": (values, None),
    }
    codes = {"float64": "F64", "float32": "F32", "int64": "I64"}
    for name, (given, texts) in wrong.items():

        def run(folder: Path, given: np.ndarray = given, texts: Any = texts) -> None:
            path = folder / "c.safetensors"
            parts = [("coefficients", codes[str(given.dtype)], given.shape, given.tobytes())]
            tensors = {"coefficients": torch.from_numpy(given)}
            checkpoints.save(path, tensors, seal(texts, parts))
            refused(lambda: LearnedCoefficients.load(path), str(path))

        yield Case(f"coefficients in a file: {name}", run)

        def save(folder: Path, given: np.ndarray = given, texts: Any = texts) -> None:
            if not isinstance(texts, dict) or set(texts) != {"layers", "tasks"}:
                return
            if not all(isinstance(each, list) for each in texts.values()):
                return
            learned = LearnedCoefficients(
                torch.from_numpy(given), tuple(texts["layers"]), tuple(texts["tasks"])
            )
            refused(lambda: learned.save(folder / "c.safetensors"), "not written")
            if list(folder.iterdir()):
                raise FaultError("left a file")

        yield Case(f"coefficients to be written: {name}", save)

    def extra(folder: Path) -> None:
        path = folder / "c.safetensors"
        ones = np.ones((2, 3))
        parts = [(n, "F64", ones.shape, ones.tobytes()) for n in ("coefficients", "more")]
        tensors = {n: torch.from_numpy(ones) for n in ("coefficients", "more")}
        checkpoints.save(path, tensors, seal(names, parts))
        refused(lambda: read_arrays(path), "no merging coefficients")

    yield Case("coefficients in a file: a tensor more", extra)

    def good(folder: Path) -> None:
        _values().save(folder / "c")
        found = LearnedCoefficients.load(str(folder / "c"))
        if not torch.equal(found.values, _values().values):
            raise FaultError("other values")

    yield Case("coefficients in a file, by a path as text", good)


# --- what a stage does ---


def _set_aside() -> Iterator[Case]:
    def gone_on(folder: Path, damage: Callable[[Path, Path], Any]) -> tuple[list[int], Path]:
        """Damage the files of an interrupted run, and go on as a stage does: the steps taken."""
        problem, state = Problem(), folder / "run.safetensors"
        rows = ResumableRows(folder, "run")
        for step in adapt(problem.engine(), problem.images, CHOSEN, 0, state, 1):
            rows.append({"step": step.step, "loss": 0.0})
            if step.step == 4:
                break
        damage(state, folder / "run.jsonl")
        start = partial(adapt, problem.engine(), problem.images, CHOSEN, 0, state, 1)
        again = ResumableRows(folder, "run")
        taken = []
        for step in resumed(start, state, again):
            again.append({"step": step.step, "loss": 0.0})
            taken.append(step.step)
        if [row["step"] for row in again.rows] != list(range(1, 7)):
            raise FaultError(f"the curve has {again.rows}")
        return taken, state

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-3] ^= 4
        path.write_bytes(data)

    def line(path: Path, number: int) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = lines[number].replace(b"0.0", b"0.1")
        path.write_bytes(b"".join(lines))

    def other_run(state: Path, _: Path) -> None:
        found = state_files.read(state)
        state_files.save(state, replace(found, run=found.run | {"seed": 5}))

    damages: dict[str, Callable[[Path, Path], Any]] = {
        "a flipped bit": lambda state, _: flip(state),
        "a cut": lambda state, _: state.write_bytes(state.read_bytes()[:-5]),
        "emptiness": lambda state, _: state.write_bytes(b""),
        "another run's state": other_run,
        "a folder in its place": lambda state, _: (state.unlink(), state.mkdir()),
        "no curve": lambda _, rows: rows.unlink(),
        "a curve that is cut": lambda _, rows: rows.write_bytes(rows.read_bytes()[:50]),
        "a changed row": lambda _, rows: line(rows, 1),
        "a curve of another kind": lambda _, rows: rows.write_text("{}\n[]\nnull\n"),
        "a curve that is no text": lambda _, rows: rows.write_bytes(bytes(range(256))),
    }
    for name, damage in damages.items():

        def run(folder: Path, damage: Callable[[Path, Path], Any] = damage) -> None:
            taken, state = gone_on(folder, damage)
            if taken != list(range(1, 7)):
                raise FaultError(f"took the steps {taken}")
            if not state.with_name(f"{state.name}.set-aside-1").exists():
                raise FaultError("the state was lost")

        yield Case(f"a stage goes on after {name}", run)

    def undamaged(folder: Path) -> None:
        taken, _ = gone_on(folder, lambda *_: None)
        if taken != [4, 5, 6]:
            raise FaultError(f"took the steps {taken}")

    yield Case("a stage goes on where it was", undamaged)


# --- settings and parameters ---

STRANGE: dict[str, Any] = {
    "True": True,
    "NaN": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "-1": -1,
    "10^30": 10**30,
    "10^400": 10**400,
    "10^5000": 10**5000,
    "text": "1e-3",
    "None": None,
    "a list": [0.5],
    "a tensor": torch.tensor(1),
    "complex": 1j,
}


def _settings() -> Iterator[Case]:
    fields = ("steps", "images_per_task", "batches_per_step", "measure_every", "patience")
    numbers = ("learning_rate", "start", "unlabeled_share", "held_out_share")
    words = ("granularity", "objective", "clamp", "schedule")
    fine = {("learning_rate", "10^30")}
    for field in (*fields, *numbers, *words):
        for name, value in STRANGE.items():
            if (field, name) not in fine:
                chosen = replace(CHOSEN, **{field: value})
                yield Case(
                    f"setting {field}: {name}",
                    lambda _, chosen=chosen, field=field: _none(
                        refused(lambda: Problem().adapt(chosen), field)
                    ),
                    seconds=20,
                )
    for field in fields:
        chosen = replace(CHOSEN, **{field: 10**9 + 1})
        yield Case(
            f"setting {field}: 10^9 + 1",
            lambda _, chosen=chosen, field=field: _none(
                refused(lambda: Problem().adapt(chosen), field, "at most")
            ),
            seconds=20,
        )
    product = replace(CHOSEN, images_per_task=10**5, batches_per_step=10**4)
    yield Case(
        "settings: 10^9 images a step",
        lambda _: _none(refused(lambda: Problem().adapt(product), "images_per_task = 100000")),
        seconds=20,
    )
    for option in ("seed", "save_every"):
        for name, value in STRANGE.items():

            def run(_: Path, option: str = option, value: Any = value) -> None:
                problem = Problem()
                given = {"seed": 0, option: value}
                refused(
                    lambda: next(adapt(problem.engine(), problem.images, CHOSEN, **given)), option
                )

            yield Case(f"adapt's {option}: {name}", run, seconds=20)


def _parameters() -> Iterator[Case]:
    """Every parameter of every part of a method, with every strange value."""
    for registry in (RULES, BEFORE):
        for entry in registry.values():
            if entry.needs:
                continue
            for parameter in entry.parameters:
                for name, value in STRANGE.items():
                    if name in ("None", "-1", "10^30"):  # right for some
                        continue

                    def run(_: Path, entry=entry, parameter=parameter, value=value) -> None:  # type: ignore[no-untyped-def]
                        vectors = Problem().vectors
                        refused(lambda: entry(vectors, **{parameter: value}), parameter)

                    yield Case(f"{entry.name}'s {parameter}: {name}", run, seconds=20)
            yield Case(
                f"{entry.name}: an unknown parameter",
                lambda _, entry=entry: _none(
                    refused(lambda: entry(Problem().vectors, skaling=1.0), "skaling", "known")
                    if entry.parameters
                    else refused(lambda: entry(Problem().vectors, skaling=1.0), "skaling")
                ),
            )
            for given in (None, {}, [], "vectors", torch.ones(2)):
                yield Case(
                    f"{entry.name} of {type(given).__name__}",
                    lambda _, entry=entry, given=given: _none(
                        refused(lambda: entry(given), "TaskVectors")
                    ),
                )


def _merges() -> Iterator[Case]:
    values: dict[str, tuple[Any, str]] = {
        "10^39": (torch.full((2,), 1e39, dtype=torch.float64), "1e+39"),
        "10^300": (torch.full((2,), 1e300, dtype=torch.float64), "1e+300"),
        "-10^39 layer-wise": (torch.full((4, 2), -1e39, dtype=torch.float64), "1e+39"),
        "NaN": (torch.tensor([math.nan, 1.0]), "non-finite"),
        "infinity": (torch.tensor([math.inf, 1.0]), "non-finite"),
        "whole numbers": (torch.ones(2, dtype=torch.int64), "int64"),
        "booleans": (torch.tensor([True, False]), "bool"),
        "complex": (torch.ones(2, dtype=torch.complex64), "complex"),
        "three tasks": (torch.ones(3), "shape [3]"),
        "no task": (torch.ones(0), "shape [0]"),
        "a scalar": (torch.tensor(0.3), "shape []"),
        "five layers": (torch.ones(5, 2), "shape [5, 2]"),
        "three dimensions": (torch.ones(1, 4, 2), "shape"),
        **{
            f"that are {name}": (tensor, "")
            for name, (tensor, _) in strange_tensors().items()
            if name != "complex128"
        },
    }
    for name, (coefficients, told) in values.items():
        yield Case(
            f"merge by coefficients {name}",
            lambda _, given=coefficients, told=told: _none(
                refused(lambda: Problem().vectors.merge(given), told)
            ),
        )
    for name in ("task_arithmetic", "ties_merging", "dare", "breadcrumbs", "consensus", "tsv_m"):
        yield Case(
            f"{name} scaled by 10^39",
            lambda _, name=name: _none(
                refused(lambda: RULES[name](Problem().vectors, scaling=1e39), "finite")
            ),
        )
    vectors: dict[str, Callable[[TaskVectors], Any]] = {
        "a task that is not there": lambda v: v.select(("signs",)),
        "a task twice": lambda v: v.select(("digits", "digits")),
        "a text as tasks": lambda v: v.select("digits"),
        "a dtype float64 for files": lambda v: v.save({"digits": "x"}, torch.float64),
        "a dtype as text": lambda v: v.save({"digits": "x"}, "float16"),
        "paths as a list": lambda v: v.save(["x"]),
        "opening a list": lambda v: TaskVectors.open(v.pretrained, ["x"]),
        "opening nothing": lambda v: TaskVectors.open(v.pretrained, {}),
    }
    for name, call in vectors.items():
        yield Case(
            f"task vectors: {name}",
            lambda _, call=call: _none(refused(lambda: call(Problem().vectors))),
        )


# --- what goes wrong in the middle ---


def _middles() -> Iterator[Case]:
    endless = replace(CHOSEN, clamp="none")

    class Turned(nn.Module):
        """A head that answers with other logits from a forward pass on."""

        def __init__(self, head: nn.Module, at: int, value: float) -> None:
            super().__init__()
            self.head, self.left, self.value = head, at, value

        def forward(self, features: Tensor) -> Tensor:
            self.left -= 1
            logits = self.head(features)
            return logits if self.left > 0 else logits + self.value

    for step in (1, 2, 4, 6):
        for value in (math.nan, math.inf, -math.inf):

            def run(folder: Path, step: int = step, value: float = value) -> None:
                problem, good = Problem(), Problem()
                expected = [each.coefficients for each in good.adapt()]
                problem.heads["letters"] = Turned(problem.heads["letters"], step, value)
                state = folder / "state.safetensors"
                error = refused(
                    lambda: problem.adapt(resume_from=state, save_every=1),
                    f"step {step}:",
                    "task letters",
                    "likeliest cause",
                )
                _last_good(error, step, expected)

            yield Case(f"logits turn {value} at step {step}", run)
    for name, at, told in (
        ("a head with -inf", "head", "head of task letters"),
        ("images with NaN", "images", "images of task letters"),
    ):

        def caused(_: Path, at: str = at, told: str = told) -> None:
            problem = Problem()
            if at == "head":
                with torch.no_grad():
                    problem.heads["letters"].bias[1] = -math.inf  # type: ignore[index, operator]
            else:
                problem.images["letters"][:] = math.nan
            refused(problem.adapt, told, "step 1:")

        yield Case(f"the cause is named: {name}", caused)
    for rate in (1e200, 1e300):
        hot = replace(endless, learning_rate=rate)

        def burnt(_: Path, hot: AdaptationSettings = hot) -> None:
            error = refused(lambda: Problem().adapt(hot), "learning")
            if not isinstance(error, NonFiniteError) or not torch.isfinite(error.parameters).all():
                raise FaultError("the last good parameters are not there")

        yield Case(f"a learning rate of {rate:g} without a clamp", burnt)
    for option in ({"held_out_share": 0.3, "measure_every": 1}, {"granularity": "task_wise"}):
        chosen = replace(CHOSEN, **option)  # type: ignore[arg-type]

        def stopped(_: Path, chosen: AdaptationSettings = chosen) -> None:
            problem = Problem()
            problem.heads["letters"] = Turned(problem.heads["letters"], 3, math.nan)
            refused(lambda: problem.adapt(chosen), "task letters", "step ")

        yield Case(f"logits turn NaN with {option}", stopped)

    def fine(folder: Path) -> None:
        """A run with a state file gives the bits of one without."""
        first = Problem().adapt()
        second = Problem().adapt(resume_from=str(folder / "s"), save_every=2)
        if any(
            not torch.equal(a.coefficients, b.coefficients)
            for a, b in zip(first, second, strict=True)
        ):
            raise FaultError("other coefficients")

    yield Case("a state file changes no bit, its path as text", fine)


def _last_good(error: InputError, step: int, expected: list[Tensor]) -> None:
    if not isinstance(error, NonFiniteError) or error.step != step:
        raise FaultError(f"is {type(error)}")
    start = torch.full((4, 2), 0.3, dtype=torch.float64)
    if not torch.equal(error.parameters, expected[step - 2] if step > 1 else start):
        raise FaultError("the last good parameters are others")


# --- images, labels, heads ---


def _inputs() -> Iterator[Case]:
    images: dict[str, Any] = {
        "a list": [[1.0] * 5],
        "None": None,
        "a text": "images",
        "a number": 3,
        "no images": torch.zeros(0, 5),
        "no dimension": torch.tensor(1.0),
        "one dimension": torch.zeros(20),
        "four features": torch.zeros(20, 4),
        "three dimensions": torch.zeros(20, 3, 3),
        "float64": torch.zeros(20, 5, dtype=torch.float64),
        "whole numbers": torch.zeros(20, 5, dtype=torch.int64),
        "bytes": torch.zeros(20, 5, dtype=torch.uint8),
        "booleans": torch.zeros(20, 5, dtype=torch.bool),
        "complex": torch.zeros(20, 5, dtype=torch.complex64),
        "NaN": torch.full((20, 5), math.nan),
        "infinite": torch.full((20, 5), math.inf),
        "an array of objects": np.full((20, 5), None),
        "an array of texts": np.full((20, 5), "x"),
        "an array of dates": np.full((20, 5), np.datetime64("2020-01-01")),
        "an array of float64": np.zeros((20, 5)),
        "an array of complex": np.zeros((20, 5), dtype=complex),
        "sparse": torch.eye(5).to_sparse(),
        "meta": torch.empty(20, 5, device="meta"),
        "nothing by five": torch.zeros(20, 0),
    }
    takers: dict[str, Callable[[Problem, Any], Any]] = {
        "adapt": lambda p, given: list(
            adapt(p.engine(), {**p.images, "letters": given}, CHOSEN, 0)
        ),
        "correct": lambda p, given: correct(
            p.encoder, p.heads["letters"], given, p.labels["letters"]
        ),
        "expert_targets": lambda p, given: expert_targets(
            p.encoder, p.vectors, p.heads, {**p.images, "letters": given}
        ),
        "fisher_diagonal": lambda p, given: fisher_diagonal(p.encoder, p.heads["letters"], given),
        "gram_matrices": lambda p, given: gram_matrices(p.encoder, given),
    }
    finite = ("adapt", "correct", "expert_targets")
    for taker, take in takers.items():
        for name, given in images.items():
            if name in ("NaN", "infinite") and taker not in finite:
                continue  # the rules refuse statistics that are not finite
            yield Case(
                f"{taker}: images that are {name}",
                lambda _, take=take, given=given: _none(refused(lambda: take(Problem(), given))),
                seconds=20,
            )
    labels: dict[str, Any] = {
        "floats": torch.zeros(20),
        "too few": torch.zeros(19, dtype=torch.int64),
        "two dimensions": torch.zeros(20, 1, dtype=torch.int64),
        "negative": torch.full((20,), -1),
        "beyond the classes": torch.full((20,), 4),
        "texts": np.full(20, "a"),
        "objects": np.full(20, None),
        "booleans": torch.zeros(20, dtype=torch.bool),
        "None": None,
        "meta": torch.empty(20, dtype=torch.int64, device="meta"),
    }
    supervised = replace(CHOSEN, objective="cross_entropy")
    for name, given in labels.items():

        def judged(_: Path, given: Any = given) -> None:
            problem = Problem()
            refused(
                lambda: correct(
                    problem.encoder, problem.heads["letters"], problem.images["letters"], given
                )
            )

        def learned(_: Path, given: Any = given) -> None:
            problem = Problem()
            targets = {**problem.labels, "letters": given}
            refused(
                lambda: list(
                    adapt(problem.engine(), problem.images, supervised, 0, targets=targets)
                )
            )

        yield Case(f"correct: labels that are {name}", judged)
        yield Case(f"adapt: labels that are {name}", learned)
    heads: dict[str, Any] = {
        "None": None,
        "a tensor": torch.ones(4, 4),
        "a function": torch.sum,
        "of other features": nn.Linear(5, 4),
        "without values yet": nn.LazyLinear(4),
        "of one class": nn.Linear(4, 1),
        "of one dimension": nn.Flatten(0),
        "of three dimensions": nn.Unflatten(1, (2, 2)),
        "in float64": nn.Linear(4, 4).double(),
        "in bfloat16": nn.Linear(4, 4).bfloat16(),
        "on meta": nn.Linear(4, 4, device="meta"),
        "of a mean over images": nn.AdaptiveAvgPool1d(1),
    }
    for name, head in heads.items():

        def classified(_: Path, head: Any = head) -> None:
            problem = Problem()
            problem.heads["letters"] = head
            refused(problem.adapt)

        yield Case(f"adapt: a head that is {name}", classified)
    for name, value in STRANGE.items():
        for taker, size in {
            "correct": lambda p, v: correct(
                p.encoder, p.heads["digits"], p.images["digits"], p.labels["digits"], v
            ),
            "expert_targets": lambda p, v: expert_targets(
                p.encoder, p.vectors, p.heads, p.images, v
            ),
            "fisher_diagonal": lambda p, v: fisher_diagonal(
                p.encoder, p.heads["digits"], p.images["digits"], v
            ),
            "gram_matrices": lambda p, v: gram_matrices(p.encoder, p.images["digits"], v),
            "Engine": lambda p, v: p.engine(micro_batch=v),
        }.items():
            if taker == "Engine" and name == "None":
                continue
            yield Case(
                f"{taker}: a batch size {name}",
                lambda _, size=size, value=value: _none(refused(lambda: size(Problem(), value))),
            )
    products: dict[str, Any] = {
        "an array": np.eye(2),
        "not square": torch.ones(2, 3),
        "whole numbers": torch.eye(2, dtype=torch.int64),
        "NaN": torch.full((2, 2), math.nan),
        "negative": -torch.eye(2),
        "one dimension": torch.ones(2),
    }
    for name, given in products.items():
        for function in (l2_norms, cosine_matrix):
            yield Case(
                f"{function.__name__} of {name}",
                lambda _, f=function, given=given: _none(refused(lambda: f(given))),
            )
