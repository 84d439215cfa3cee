"""evaluate: top-1 accuracy of one method on every task's test images, by both protocols."""

from pathlib import Path

import numpy as np
from torch import nn

from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.vision.images import LabeledImages
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_heads, open_split
from tasks.shared.hits import write_hits
from tasks.shared.long_tables import ACCURACY, MEASURED, write_long
from tasks.shared.protocols import measured_rows
from tasks.shared.tables import write_json


def run(work: Work) -> None:
    """Write which images the method gets right, its accuracies, and their mean by protocol."""
    suite, method, tasks = work.options["suite"], work.options["method"], work.params["tasks"]
    device = set_up(work.params["compute"])
    encoder = open_encoder(work.params["model"], device)
    heads = open_heads(work.options["model"], tasks, device)
    test = open_split(tasks, work.options["size"], "test")
    share = work.params["evaluate"]["held_out_fraction"]
    hits = Hits(encoder, heads)
    rows, averages, right = [], {}, {}
    for protocol in PROTOCOLS:
        measured = {}
        for done, (task, part) in enumerate(test.items(), start=1):
            seen = measured_rows(len(part.labels), protocol, share)
            checkpoint = weights(work, protocol, task)
            right[protocol, task] = hits.of(checkpoint, task, part)[seen]
            measured[task] = percent(right[protocol, task])
            work.report.progress(
                done, len(test), f"{method} {protocol}  {task}: {measured[task]:.1f} %"
            )
        named = {"method": method, "protocol": protocol, "seed": work.seed, "metric": ACCURACY}
        rows += [{**named, "task": task, "value": value} for task, value in measured.items()]
        with_mean = with_average(measured)
        averages[protocol] = round(with_mean["average"], 2)
        work.report.metrics({f"{protocol}/{task}": v for task, v in with_mean.items()}, 0)
    write_hits(paths.hits(suite, method, work.seed), right)
    write_long(paths.evaluation(suite, method, work.seed), MEASURED, rows)
    write_json(paths.averages(suite, method, work.seed), averages)


class Hits:
    """Which test images a checkpoint gets right: each is loaded and measured once in a row."""

    def __init__(self, encoder: nn.Module, heads: dict[str, nn.Module]) -> None:
        self._encoder, self._heads = encoder, heads
        self._loaded: Path | None = None
        self._found: dict[tuple[Path, str], np.ndarray] = {}

    def of(self, checkpoint: Path, task: str, test: LabeledImages) -> np.ndarray:
        """Measure a task's test images: [N] bool."""
        key = (checkpoint, task)
        if key not in self._found:
            if checkpoint != self._loaded:
                load_weights(self._encoder, checkpoint)
                self._loaded = checkpoint
            self._found[key] = correct(self._encoder, self._heads[task], test.images, test.labels)
        return self._found[key]


def weights(work: Work, protocol: str, task: str) -> Path:
    """Name the checkpoint that the method uses on a task: by protocol where it adapts."""
    suite, model, method = (work.options[key] for key in ("suite", "model", "method"))
    if method == "pretrained":
        return paths.pretrained(model)
    if method == "individual":
        return paths.finetuned(model, task, work.seed)
    if method == "traditional_mtl":
        together = paths.tasks_together(work.params["tasks"])
        return paths.traditional_mtl(model, together, work.seed)
    adapted = paths.merged(suite, method, work.seed, protocol)
    return adapted if adapted.as_posix() in work.deps else paths.merged(suite, method, work.seed)


if __name__ == "__main__":
    run_stage(run)
