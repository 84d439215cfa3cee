"""Settings of an adaptation, and parameters of rules, with strange values."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks

from adamerge_core.adamerging import adapt
from adamerge_core.merging import BEFORE, RULES
from tests.attacks.cases import Case, refused, refuses
from tests.attacks.state_files.models import CHOSEN, STRANGE, Problem


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
                    lambda _, chosen=chosen, field=field: refuses(
                        lambda: Problem().adapt(chosen), field
                    ),
                    seconds=20,
                )
    for field in fields:
        chosen = replace(CHOSEN, **{field: 10**9 + 1})
        yield Case(
            f"setting {field}: 10^9 + 1",
            lambda _, chosen=chosen, field=field: refuses(
                lambda: Problem().adapt(chosen), field, "at most"
            ),
            seconds=20,
        )
    product = replace(CHOSEN, images_per_task=10**5, batches_per_step=10**4)
    yield Case(
        "settings: 10^9 images a step",
        lambda _: refuses(lambda: Problem().adapt(product), "images_per_task = 100000"),
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
                lambda _, entry=entry: refuses(
                    lambda: entry(Problem().vectors, skaling=1.0),
                    "skaling",
                    *(["known"] if entry.parameters else []),
                ),
            )
            for given in (None, {}, [], "vectors", torch.ones(2)):
                yield Case(
                    f"{entry.name} of {type(given).__name__}",
                    lambda _, entry=entry, given=given: refuses(
                        lambda: entry(given), "TaskVectors"
                    ),
                )


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _settings()
    yield from _parameters()
