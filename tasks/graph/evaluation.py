"""The stages that measure: evaluate, geometry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import heads_of, options_of, vectors_of
from tasks.graph.paths import PROTOCOLS
from tasks.graph.templates import (
    ENCODER,
    METHOD,
    ON_CPU,
    SEED,
    SUITE,
    axes,
    split_files,
    template,
)
from tasks.suite.schema import Suite


def stages(suite: Suite) -> list[Stage]:
    """Make the templates that measure a suite's models."""
    model = suite.model.name
    plain = [name for name, method in suite.merging.items() if not method.adapts]
    adapted = [name for name, method in suite.merging.items() if method.adapts]
    merged = [paths.merged(SUITE, METHOD, SEED)]
    references = {
        "pretrained": [paths.pretrained(model)],
        "individual": [paths.finetuned(model, task, SEED) for task in suite.tasks],
        "traditional_mtl": [paths.traditional_mtl(model, paths.tasks_together(suite.tasks), SEED)],
    }
    by_protocol = [paths.merged(SUITE, METHOD, SEED, protocol) for protocol in PROTOCOLS]
    return [
        _geometry(suite),
        *(_reference(suite, name, references[name]) for name in suite.references),
        _evaluate(suite, "evaluate", METHOD, {"method": plain}, merged),
        _evaluate(suite, "evaluate_adapted", METHOD, {"method": adapted}, by_protocol),
    ]


def _geometry(suite: Suite) -> Stage:
    return template(
        "geometry",
        "tasks.geometry",
        {"suite": SUITE, "model": suite.model.name, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=vectors_of(suite, suite.tasks),
        params=["tasks", *ON_CPU],
        outs=[paths.geometry(SUITE, SEED)],
    )


def _reference(suite: Suite, name: str, weights: Sequence[Path]) -> Stage:
    return _evaluate(suite, f"evaluate_{name}", name, {}, weights)


def _evaluate(
    suite: Suite,
    name: str,
    method: str,
    methods: dict[str, list[Any]],
    weights: Sequence[Path],
) -> Stage:
    size = str(suite.size)
    return template(
        name,
        "tasks.evaluate",
        {**options_of(suite), "method": method, "seed": SEED},
        matrix={**axes(suite=suite.name), **methods, **axes(seed=suite.seeds)},
        deps=[
            *weights,
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, size, "test"),
        ],
        params=["tasks", "evaluate.held_out_fraction", *ENCODER],
        outs=[paths.evaluation(SUITE, method, SEED), paths.hits(SUITE, method, SEED)],
        metrics=[paths.averages(SUITE, method, SEED)],
    )
