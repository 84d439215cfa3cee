"""prepare: the images of one dataset decoded and resized once, to one array a split."""

from adamerge_core.vision.preparation import prepare_archive
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work


def run(work: Work) -> None:
    """Write images uint8 [N, size, size, 3] and labels int64 [N] of every split, streaming.

    Raises InputError listing the images that cannot be read and the splits that are missing.
    """
    dataset, size = work.options["dataset"], work.options["size"]
    prepared = prepare_archive(
        paths.raw(dataset),
        int(size),
        lambda split: (paths.images(dataset, size, split), paths.labels(dataset, size, split)),
        work.params["prepare"]["unreadable"],
        work.report.progress,
        work.options["splits"].split("-"),
    )
    for split, count in prepared.counts.items():
        print(f"{dataset} {split}: {count} images")
    for change, count in prepared.changes.items():
        print(f"{dataset}: {count} images {change}")
    for line in prepared.skipped:
        print(f"skipped: {line}")
    counts = {f"images/{split}": count for split, count in prepared.counts.items()}
    work.report.metrics({**counts, "skipped": len(prepared.skipped)}, 0)


if __name__ == "__main__":
    run_stage(run)
