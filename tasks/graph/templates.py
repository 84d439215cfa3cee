"""How a template of stages is written: its command, and the code that the command runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.graph import paths
from tasks.graph.code import sources
from tasks.graph.dvc_yaml import Stage

DATASET, SIZE, MODEL = "${item.dataset}", "${item.size}", "${item.model}"
SUITE, SEED, METHOD = "${item.suite}", "${item.seed}", "${item.method}"
STATISTIC, CORRUPTION = "${item.statistic}", "${item.corruption}"
"""What stands for the axes of a matrix, in commands and in paths."""

ON_CPU = ("compute.threads",)  # sums split over threads round differently
ON_DEVICE = ("compute.device", *ON_CPU)
ENCODER = ("model", *ON_DEVICE)
"""Parameters of the stages that sum on the CPU, that compute on the suite's device, and that run
the image encoder there."""


def template(
    name: str,
    module: str,
    options: Mapping[str, str],
    *,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    deps: Iterable[Path] = (),
    code: Iterable[str] = (),
    params: Iterable[str] = (),
    outs: Iterable[Path] = (),
    metrics: Iterable[Path] = (),
) -> Stage:
    """Make a template that runs `python -m <module> --<option> <value> ...`.

    It depends on the source files that this runs. code: dotted modules that it uses without an
    import statement of theirs: registered functions.
    """
    words = [f"--{key} {value}" for key, value in options.items()]
    return Stage(
        name,
        " ".join(["python", "-m", module, *words]),
        deps=(*(path.as_posix() for path in deps), *sources(_started(module), *code)),
        params=tuple(params),
        outs=tuple(path.as_posix() for path in outs),
        metrics=tuple(path.as_posix() for path in metrics),
        matrix=matrix or {},
    )


def _started(module: str) -> str:
    """The module that `python -m` starts: of a package its `__main__`."""
    is_package = Path(*module.split(".")).is_dir()
    return f"{module}.__main__" if is_package else module


def axes(**values: Sequence[Any] | str | int) -> dict[str, list[Any]]:
    """Make a matrix; a single value is an axis of one."""
    return {
        axis: [value] if isinstance(value, str | int) else list(value)
        for axis, value in values.items()
    }


def split_files(datasets: Iterable[str], size: str | int, split: str) -> list[Path]:
    """List images and labels of one split of each dataset."""
    return [
        path(dataset, size, split) for dataset in datasets for path in (paths.images, paths.labels)
    ]


def uses_device(stage: Stage) -> bool:
    """Tell whether a stage computes on the suite's device."""
    return not {"compute", "compute.device"}.isdisjoint(stage.params)
