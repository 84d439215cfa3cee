"""Coefficients that no merge takes, and task vectors used otherwise."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks

from adamerge_core.merging import RULES
from adamerge_core.task_vectors import TaskVectors
from tests.attacks.cases import Case, refuses
from tests.attacks.checkpoints.tensors import strange_tensors
from tests.attacks.state_files.models import Problem


def cases() -> Iterator[Case]:
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
            lambda _, given=coefficients, told=told: refuses(
                lambda: Problem().vectors.merge(given), told
            ),
        )
    for name in ("task_arithmetic", "ties_merging", "dare", "breadcrumbs", "consensus", "tsv_m"):
        yield Case(
            f"{name} scaled by 10^39",
            lambda _, name=name: refuses(
                lambda: RULES[name](Problem().vectors, scaling=1e39), "finite"
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
            lambda _, call=call: refuses(lambda: call(Problem().vectors)),
        )
