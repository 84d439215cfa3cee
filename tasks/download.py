"""download: the images of one dataset, as one archive, with its classes and prompt templates."""

from adamerge_core.vision.archive import write_archive
from adamerge_core.vision.datasets.registry import read_source
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.tables import write_json


def run(work: Work) -> None:
    """Write the images of all splits, with their names, to the archive, and classes.json."""
    dataset = work.options["dataset"]
    found = read_source(dataset, work.params["datasets"][dataset]).images(dataset)
    write_archive(paths.raw(dataset), found, work.report.progress)
    names = {"classes": list(found.classes), "templates": list(found.templates)}
    write_json(paths.classes(dataset), names)


if __name__ == "__main__":
    run_stage(run)
