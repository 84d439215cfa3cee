"""`adamerge data export`: a miniature data set as folders of images."""

import shutil
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.miniature import Miniature
from adamerge_core.vision.work_folders import put_in_place, taken_fault, work_folder


def export(name: str, folder: str, train: int, test: int, seed: int) -> int:
    """Write <folder>/<split>/<class>/<number>.png for the splits train and test."""
    out = Path(folder)
    source = Miniature(seed=seed, train=train, val=1, test=test)
    faults = source.faults(name)
    if fault := taken_fault(out, "DIR"):
        faults.append(fault)
    if faults:
        raise InputError.listing("adamerge data export", faults)
    data = source.images(name)
    with work_folder(out, {"miniature": name, **vars(source)}) as work:
        made = work / "made"
        shutil.rmtree(made, ignore_errors=True)
        for number, image in enumerate(data.images):
            if image.split in ("train", "test"):
                place = made / image.split / data.classes[image.label]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{number:06}{image.suffix}").write_bytes(image.content)
        put_in_place(made, out)
    print(f"{out}: {train} images in train, {test} in test, {len(data.classes)} classes of {name}")
    return 0
