"""What the stages finetune and traditional_mtl share: train an encoder, write it and its curve."""

from collections.abc import Sequence

from adamerge_core import checkpoints
from adamerge_core.vision.training import TrainingSettings, finetune
from tasks.graph.paths import Files
from tasks.running.stage import Reporter
from tasks.shared.encoders import accuracy, load_weights, open_encoder, open_heads, open_split
from tasks.shared.tables import ResumableRows, write_csv, write_json
from tasks.suite.schema import Suite


def train_encoder(
    name: str,
    task_names: Sequence[str],
    settings: TrainingSettings,
    suite: Suite,
    seed: int,
    report: Reporter,
) -> None:
    """Train the pretrained encoder on the union of the tasks' training images.

    Writes the checkpoint `name`, its loss curve, and its accuracy on each task's validation images.
    """
    files = Files(suite.name)
    encoder, heads = open_encoder(suite), open_heads(suite, task_names)
    load_weights(encoder, files.pretrained)
    curve = ResumableRows(report.scratch, "curve")
    state = report.scratch / "training.safetensors" if report.scratch else None
    data = open_split(files, task_names, "train")
    for step in finetune(encoder, heads, data, settings, seed, state):
        values = {"loss": step.loss, "learning_rate": step.learning_rate}
        curve.append({"step": step.step, **values})
        report.metrics(values, step.step)
        report.progress(step.step, settings.steps, f"{name}  loss {step.loss:.3f}")
    measured = accuracy(encoder, heads, open_split(files, task_names, "val"))
    checkpoints.save(files.finetuned(name, seed), encoder.state_dict())
    write_csv(files.finetune_curve(name, seed), curve.rows)
    write_json(files.finetune_metrics(name, seed), {"validation accuracy": measured})
