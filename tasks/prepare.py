"""prepare: decode and resize the images of one task once, to one array a split."""

import argparse
import json

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.images import read_archive, save_array
from tasks.graph.paths import SPLITS, Files
from tasks.running.stage import run_stage
from tasks.suite.schema import load_params


def run(task_name: str, files: Files, image_size: int) -> None:
    """Write images uint8 [N, H, W, 3], labels int64 [N] and classes.json.

    Raises InputError listing the images that cannot be read and the splits that are missing.
    """
    archive = files.raw(task_name)
    names, splits = read_archive(archive, image_size)
    missing = [f"split {split} has no image" for split in SPLITS if split not in splits]
    if missing:
        raise InputError.listing(f"{archive}", missing)
    for split, data in splits.items():
        save_array(files.images(task_name, split), data.images)
        save_array(files.labels(task_name, split), data.labels)
        print(f"{task_name} {split}: {len(data.labels)} images of {len(names['classes'])} classes")
    with atomic_write(files.classes(task_name)) as temporary:
        temporary.write_text(json.dumps(names, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.prepare", description=__doc__)
    parser.add_argument("--task", required=True, help="a task of params.yaml, section download")
    task_name = parser.parse_args().task

    def body(_: object) -> None:
        suite = load_params()
        run(task_name, Files(suite.name), suite.prepare.image_size)

    run_stage(f"prepare@{task_name}", body)


if __name__ == "__main__":
    main()
