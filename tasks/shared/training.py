"""What the stages finetune and traditional_mtl share: train an encoder, write it and its curve."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adamerge_core import checkpoints
from adamerge_core.vision.training import TrainingSettings, finetune
from tasks.graph import paths
from tasks.running.work import Work
from tasks.shared.accuracy import accuracy
from tasks.shared.device import set_up
from tasks.shared.encoders import load_weights, open_encoder, open_heads, open_split
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.resuming import resumed
from tasks.shared.tables import write_csv
from tasks.suite.sections import Finetune


def finetune_settings(section: Finetune, steps: int | None = None) -> TrainingSettings:
    """Make training settings of the section finetune, with another number of steps if given."""
    return TrainingSettings(**(section.model_dump() | {"steps": steps or section.steps}))


def train_encoder(
    name: str, datasets: Sequence[str], settings: TrainingSettings, work: Work, checkpoint: Path
) -> None:
    """Train the pretrained encoder on the union of the datasets' training images.

    Writes the checkpoint, its loss curve, and its accuracy on each dataset's validation images.
    """
    model, size, report = work.options["model"], work.options["size"], work.report
    device = set_up(work.params["compute"])
    encoder = open_encoder(work.params["model"], device)
    heads = open_heads(model, datasets, device)
    load_weights(encoder, paths.pretrained(model))
    curve = ResumableRows(report.scratch, "curve")
    state = report.scratch / "training.safetensors" if report.scratch else None
    data = open_split(datasets, size, "train")
    steps = partial(finetune, encoder, heads, data, settings, work.seed, state)
    for step in resumed(steps, state, curve):
        values = {"loss": step.loss, "learning_rate": step.learning_rate}
        curve.append({"step": step.step, **values})
        report.metrics(values, step.step)
        report.progress(step.step, settings.steps, f"{name}  loss {step.loss:.3f}")
    measured = accuracy(encoder, heads, open_split(datasets, size, "val"))
    checkpoints.save(checkpoint, encoder.state_dict())
    write_csv(paths.training_curve(checkpoint), curve.rows)
    rows = [
        {"task": task, "metric": "validation accuracy", "value": measured[task]}
        for task in datasets
    ]
    write_csv(paths.training_accuracy(checkpoint), rows)
