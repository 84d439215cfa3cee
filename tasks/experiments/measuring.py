"""What experiments have in common: models measured one after the other, over a kill."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from adamerge_core.checkpoints import StateDict
from adamerge_core.entropy import softmax_entropy
from adamerge_core.vision.choice import all_logits
from adamerge_core.vision.images import LabeledImages
from tasks.running.work import Work
from tasks.shared.long_tables import ACCURACY, ENTROPY
from tasks.shared.resumable_rows import ResumableRows

Row = dict[str, Any]
Item = TypeVar("Item")


def measure(
    encoder: nn.Module,
    model: StateDict,
    heads: Mapping[str, nn.Module],
    data: Mapping[str, LabeledImages],
) -> list[Row]:
    """Measure a model's top-1 in percent and the mean entropy of its predictions, task by task."""
    encoder.load_state_dict(model)
    rows = []
    for task, logits in all_logits(encoder, heads, data).items():
        hits = logits.argmax(dim=-1).numpy() == data[task].labels
        values = {ACCURACY: 100 * float(hits.mean())}
        values[ENTROPY] = float(softmax_entropy(logits).double().mean())
        rows += [{"task": task, "metric": name, "value": v} for name, v in values.items()]
    return rows


def each_of(work: Work, items: Sequence[Item], rows_of: Callable[[Item], list[Row]]) -> list[Row]:
    """Collect the rows of every item; after a kill it goes on with the item that it had come to."""
    kept = ResumableRows(work.report.scratch, "items")
    for number, item in enumerate(items, start=1):
        # the rows before one that is added are read back, so the last is always made here
        if number < len(items) and kept.reach(number):
            continue
        kept.append({"step": number, "rows": rows_of(item)})
        work.report.progress(number, len(items), f"{work.name}  {item}")
    return [row for each in kept.rows for row in each["rows"]]
