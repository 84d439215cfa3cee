"""Images, labels, heads, batch sizes and products that are none."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks
from torch import nn

from adamerge_core.adamerging import adapt, expert_targets
from adamerge_core.analysis import cosine_matrix, l2_norms
from adamerge_core.evaluation import correct
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from tests.attacks.cases import Case, refused, refuses
from tests.attacks.state_files.models import CHOSEN, STRANGE, Problem


def cases() -> Iterator[Case]:
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
                lambda _, take=take, given=given: refuses(lambda: take(Problem(), given)),
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
                lambda _, size=size, value=value: refuses(lambda: size(Problem(), value)),
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
                lambda _, f=function, given=given: refuses(lambda: f(given)),
            )
