"""download: the images of one dataset, as one archive, with its classes and prompt templates."""

from adamerge_core.vision.archive import write_archive
from adamerge_core.vision.datasets.registry import read_source
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.tables import write_json


def run(work: Work) -> None:
    """Write the images of all splits, with their names, to the archive, and classes.json; say what
    of the user's files is left out.
    """
    dataset = work.options["dataset"]
    found = read_source(dataset, work.params["datasets"][dataset]).images(dataset)
    print(f"{dataset}: {found.count} images of {len(found.classes)} classes")
    for remark in found.remarks:
        print(f"{dataset}: {remark}")
    write_archive(paths.raw(dataset), found, work.report.progress)
    names = {"classes": list(found.classes), "templates": list(found.templates)}
    write_json(paths.classes(dataset), names)
    remarked = sum(len(remark.names) for remark in found.remarks)
    work.report.metrics({"images": found.count, "remarks": remarked}, 0)


if __name__ == "__main__":
    run_stage(run)
