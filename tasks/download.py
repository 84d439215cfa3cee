"""download: the images of one task, as one archive."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from adamerge_core.vision import miniature
from adamerge_core.vision.images import (
    ArchivedImage,
    encode,
    folder_images,
    write_archive,
)
from tasks.graph.build import download_stage
from tasks.graph.paths import SPLITS, Files
from tasks.running.stage import Reporter, run_stage
from tasks.suite.schema import ImageFolder, Miniature, load_params


def run(task_name: str, source: Miniature | ImageFolder, archive: Path, report: Reporter) -> None:
    """Write the task's images of all splits, with its classes and templates, to `archive`."""
    if isinstance(source, Miniature):
        classes, templates = miniature.class_names(task_name), miniature.templates(task_name)
        write_archive(archive, classes, templates, _draw(task_name, source, report))
    else:
        names, images = folder_images(
            Path(source.path), source.seed, source.val_fraction, source.pretrain_per_class
        )
        write_archive(archive, names, source.templates, images)


def _draw(task_name: str, source: Miniature, report: Reporter) -> Iterator[ArchivedImage]:
    counts = {split: getattr(source, split) for split in SPLITS}
    done, total = 0, sum(counts.values())
    for split, count in counts.items():
        for pixels, label in miniature.images(task_name, split, count, source.seed):
            yield ArchivedImage(split, label, ".png", encode(pixels))
            done += 1
            report.progress(done, total, f"images of {task_name}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.download", description=__doc__)
    parser.add_argument("--task", required=True, help="a task of params.yaml, section download")
    task_name = parser.parse_args().task

    suite = load_params()
    archive = Files(suite.name).raw(task_name)
    run_stage(
        download_stage(suite, task_name),
        lambda report: run(task_name, suite.task(task_name), archive, report),
    )


if __name__ == "__main__":
    main()
