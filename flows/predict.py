"""`adamerge predict`: images classified by a registered model, or by a merged folder."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamerge_core.errors import InputError
from adamerge_core.vision.names import printable
from flows import project
from flows.model_options import device, refuse

if TYPE_CHECKING:
    from adamerge_core.vision.predictions import MultiTaskModel, Prediction

REGISTERED = "models:/"


def predict(options: argparse.Namespace) -> int:
    """Print a line an image."""
    from adamerge_core.vision import predictions

    faults: list[str] = []
    chosen = device(options.device, options.threads, faults)
    refuse("predict", faults)
    files = [Path(image).absolute() for image in options.images]  # from where the user stands
    model = _open(options.model).to(chosen)
    task = model.tasks[0] if options.task is None and len(model.tasks) == 1 else options.task
    if fault := model.task_fault(task):
        raise InputError(f"--task: {fault}")
    found = predictions.predict(model, files, [task] * len(files))
    rows = [
        {"image": printable(image), **_row(each)}
        for image, each in zip(options.images, found, strict=True)
    ]
    if options.json:
        whole = [_whole(*pair, model, task) for pair in zip(rows, found, strict=True)]
        print(json.dumps(whole, indent=2))
    elif options.csv:
        _print_csv(rows)
    else:
        _print(rows)
    return 0


def _open(name: str | None) -> "MultiTaskModel":
    if name is not None and not name.startswith(REGISTERED):
        from adamerge_core.vision.merged_folders import read_merged_model

        return read_merged_model(name)
    project.enter()
    from tasks.tracking.registry.addresses import model_folder
    from tasks.tracking.registry.model_record import open_model

    return open_model(model_folder(name))


def _row(found: "Prediction") -> dict[str, Any]:
    return {
        "class": found.class_name,
        "probability": round(found.probability, 6),
        "entropy": round(found.entropy, 6),
    }


def _whole(
    row: Mapping[str, Any], found: "Prediction", model: "MultiTaskModel", task: str
) -> dict[str, Any]:
    by_class = dict(zip(model.classes[task], found.probabilities, strict=True))
    return {**row, "task": task, "probabilities": by_class}


def _print_csv(rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print(rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [
        (
            str(row["image"]),
            printable(row["class"]),
            f"{row['probability']:.3f}",
            f"{row['entropy']:.3f}",
        )
        for row in rows
    ]
    table = [("image", "class", "probability", "entropy"), *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print("  ".join(line).rstrip())
