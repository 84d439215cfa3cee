"""Every stage of a suite, and the dvc.yaml that says so.

dvc.yaml is the only graph that runs; `adamerge suite use NAME` writes it from here. A template of
stages has a matrix: `finetune@mini_clip-mnist-0` is of the template finetune, with model mini_clip,
dataset mnist and seed 0. A stage's name holds every name that its files' paths hold, so that the
stages of other suites, models and sizes keep their place in dvc.lock when another suite is used.
"""

from pathlib import Path

from tasks.experiments import registry, robustness
from tasks.graph import data, evaluation, merging, models, paths
from tasks.graph.dvc_yaml import DVC_YAML, Stage, read, render
from tasks.graph.templates import SUITE, axes, template
from tasks.report import reads
from tasks.suite.schema import Suite

_HEADING = """\
The graph of the suite {suite}; `adamerge suite use` writes it from params.yaml (tasks/wiring.py).
Change params.yaml, not this file; then write it anew: adamerge suite use

See it with `dvc dag`; run it with `adamerge run` or `dvc repro`. docs/pipeline.md explains it."""


def templates(suite: Suite) -> list[Stage]:
    """Make all templates of a suite; those for which it has nothing are left out."""
    made = [
        *data.stages(suite),
        *models.stages(suite),
        *merging.stages(suite),
        *evaluation.stages(suite),
        *robustness.stages(suite),
        *registry.stages(suite),
        _report(suite),
    ]
    return [each for each in made if all(each.matrix.values())]


def stages(suite: Suite) -> dict[str, Stage]:
    """Make every stage of a suite by name, in an order in which they can run."""
    return {stage.name: stage for each in templates(suite) for stage in each.expand()}


def dvc_yaml(suite: Suite) -> str:
    """Write dvc.yaml for a suite."""
    return render(templates(suite), _HEADING.format(suite=suite.name), reads.figures(suite))


def misfits(suite: Suite, path: Path = DVC_YAML) -> list[str]:
    """List what in dvc.yaml differs from the suite's graph, a line a stage.

    Stages added by hand are no fault.
    """
    wanted, found = stages(suite), read(path)
    missing = [f"{name} is missing" for name in wanted if name not in found]
    common = [name for name in wanted if name in found]
    changed = [f"{name} differs" for name in common if found[name] != wanted[name]]
    return missing + changed


def _report(suite: Suite) -> Stage:
    return template(
        "report",
        "tasks.report",
        {"suite": SUITE},
        matrix=axes(suite=suite.name),
        deps=[*reads.reads(suite), *reads.STATIC],
        params=list(suite.raw),  # the page shows them all
        outs=[paths.report(SUITE) / name for name in reads.outputs(suite)],
    )
