"""Adaptations that go wrong in the middle."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks
from torch import Tensor, nn

from adamerge_core.adamerging import AdaptationSettings
from adamerge_core.adamerging.non_finite import NonFiniteError
from adamerge_core.errors import InputError
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.state_files.models import CHOSEN, Problem


def cases() -> Iterator[Case]:
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
