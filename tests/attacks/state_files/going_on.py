"""What a stage does with the damaged files of an interrupted run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core import state_files
from adamerge_core.adamerging import adapt
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.resuming import resumed
from tests.attacks.cases import Case, FaultError
from tests.attacks.state_files.models import CHOSEN, Problem


def cases() -> Iterator[Case]:
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
