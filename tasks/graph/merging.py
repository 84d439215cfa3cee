"""The stages that merge: merge by a rule, adapt. One template a method, as each depends on the code
of its own parts and on no other's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.paths import PROTOCOLS
from tasks.graph.templates import ENCODER, ON_DEVICE, SEED, SUITE, axes, split_files, template
from tasks.suite.methods import Method
from tasks.suite.schema import Suite


def stages(suite: Suite) -> list[Stage]:
    """Make the templates of a suite's methods, merges first, adaptations last."""
    merges = [_merge(suite, n, m) for n, m in suite.merging.items() if not m.adapts]
    return merges + [_adapt(suite, n, m) for n, m in suite.merging.items() if m.adapts]


def vectors_of(suite: Suite, tasks: Sequence[str]) -> list[Path]:
    """List the pretrained encoder and the task vectors of some tasks."""
    model = suite.model.name
    return [paths.pretrained(model), *(paths.task_vector(model, task, SEED) for task in tasks)]


def heads_of(suite: Suite, tasks: Sequence[str]) -> list[Path]:
    """List the heads of some tasks."""
    return [paths.head(suite.model.name, task) for task in tasks]


def statistics_of(suite: Suite, methods: Iterable[Method], tasks: Sequence[str]) -> list[Path]:
    """List the statistics that methods need of some tasks, each once."""
    kinds = dict.fromkeys(kind for method in methods for kind in method.needs)
    return [paths.statistic(suite.model.name, kind, task, SEED) for kind in kinds for task in tasks]


def code_of(methods: Iterable[Method]) -> list[str]:
    """List the modules of methods' parts, each once."""
    return list(dict.fromkeys(module for method in methods for module in method.modules))


def options_of(suite: Suite) -> dict[str, str]:
    """Name the suite, its model and the size of its images, as options of a stage."""
    return {"suite": SUITE, "model": suite.model.name, "size": str(suite.size)}


def _options(suite: Suite, name: str) -> dict[str, str]:
    return {**options_of(suite), "method": name, "seed": SEED}


def _chosen(suite: Suite, name: str, method: Method) -> tuple[list[Path], list[Path]]:
    """What a method reads, and writes, to choose the value of a parameter."""
    if not method.choose:
        return [], []
    return split_files(suite.tasks, suite.size, "val"), [paths.choice(SUITE, name, SEED)]


def _merge(suite: Suite, name: str, method: Method) -> Stage:
    measured, written = _chosen(suite, name, method)
    heads = heads_of(suite, suite.tasks) if method.choose else []
    return template(
        f"merge_{name}",
        "tasks.merge_chosen" if method.choose else "tasks.merge",
        _options(suite, name),
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *statistics_of(suite, [method], suite.tasks),
            *heads,
            *measured,
        ],
        code=method.modules,
        params=["tasks", f"methods.{name}", *(ENCODER if method.choose else ON_DEVICE)],
        outs=[paths.merged(SUITE, name, SEED), *written],
    )


def _adapt(suite: Suite, name: str, method: Method) -> Stage:
    measured, written = _chosen(suite, name, method)
    return template(
        f"adapt_{name}",
        "tasks.adapt",
        _options(suite, name),
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, suite.tasks),
            *statistics_of(suite, [method], suite.tasks),
            *heads_of(suite, suite.tasks),
            *split_files(suite.tasks, suite.size, "test"),
            *measured,
        ],
        code=method.modules,
        params=["tasks", f"methods.{name}", "evaluate", "compute", "model"],
        outs=[
            *(
                path(SUITE, name, SEED, protocol)
                for path in (paths.merged, paths.coefficients, paths.trajectory)
                for protocol in PROTOCOLS
            ),
            *written,
        ],
    )
