"""The stages that make data: download, prepare, corrupt."""

from pathlib import Path

from adamerge_core.vision.archive import SPLITS
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.templates import CORRUPTION, DATASET, SIZE, axes, template
from tasks.suite.schema import Suite

_PREPARE = {SPLITS: "prepare_with_pretrain", SPLITS[1:]: "prepare", ("test",): "prepare_test"}
"""Names of templates by the splits that they make."""


def stages(suite: Suite) -> list[Stage]:
    """Make the templates of a suite's data."""
    return [*_downloads(suite), *_prepares(suite), _corrupt(suite)]


def _downloads(suite: Suite) -> list[Stage]:
    """One a dataset: each depends on the code of its own source, and on a user's own files."""
    return [
        template(
            f"download_{name}",
            "tasks.download",
            {"dataset": name},
            deps=source.files(),
            code=source.modules(name),
            params=[f"datasets.{name}"],
            outs=[paths.raw(name), paths.classes(name)],
        )
        for name, source in suite.sources.items()
    ]


def _prepares(suite: Suite) -> list[Stage]:
    """One a set of splits: some datasets set images aside for pretraining, some are for tests
    alone.
    """
    by_splits: dict[tuple[str, ...], list[str]] = {}
    for name, source in suite.sources.items():
        splits = tuple(split for split in SPLITS if split in source.splits())
        by_splits.setdefault(splits, []).append(name)
    return [
        template(
            _PREPARE[splits],
            "tasks.prepare",
            {"dataset": DATASET, "size": SIZE, "splits": "-".join(splits)},
            matrix=axes(dataset=names, size=suite.size),
            deps=[paths.raw(DATASET)],
            params=["prepare.unreadable"],
            outs=_prepared(splits),
        )
        for splits, names in by_splits.items()
    ]


def _prepared(splits: tuple[str, ...]) -> list[Path]:
    return [path(DATASET, SIZE, split) for path in (paths.images, paths.labels) for split in splits]


def _corrupt(suite: Suite) -> Stage:
    corruptions = list(suite.corrupt.corruptions)
    return template(
        "corrupt",
        "tasks.corrupt",
        {"dataset": DATASET, "size": SIZE, "corruption": CORRUPTION},
        matrix=axes(dataset=suite.corrupt.tasks, size=suite.size, corruption=corruptions),
        deps=[paths.images(DATASET, SIZE, "test")],
        params=["corrupt.severities", "corrupt.images", "corrupt.seed"],
        outs=[paths.corrupted(DATASET, SIZE, CORRUPTION)],
    )
