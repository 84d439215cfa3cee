"""Where each file of the pipeline lies: functions of the names that made it. data/README.md tells
the same to people.

Data is kept by what makes it: a dataset's files below data/datasets, a model's below data/models.
Only what belongs to one suite lies below data/suites.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROTOCOLS = ("transductive", "held_out")

DATASETS, MODELS, SUITES = Path("data/datasets"), Path("data/models"), Path("data/suites")

# a name is text, or what stands for it in dvc.yaml: `${item.seed}`
Name = Any


def raw(dataset: Name) -> Path:
    """A dataset as it was fetched: one archive of its images."""
    return DATASETS / dataset / "raw" / "images.zip"


def classes(dataset: Name) -> Path:
    """Class names in the order of the labels, and prompt templates."""
    return DATASETS / dataset / "classes.json"


def images(dataset: Name, size: Name, split: Name) -> Path:
    """The images of a split: uint8 [N, size, size, 3]."""
    return DATASETS / dataset / f"{size}px" / f"{split}_images.npy"


def labels(dataset: Name, size: Name, split: Name) -> Path:
    """The labels of a split: int64 [N]."""
    return DATASETS / dataset / f"{size}px" / f"{split}_labels.npy"


def corrupted(dataset: Name, size: Name, corruption: Name) -> Path:
    """The first test images, corrupted: uint8 [severities, N, size, size, 3]."""
    return DATASETS / dataset / f"{size}px" / "corrupted" / f"{corruption}.npy"


def pretrained(model: Name) -> Path:
    """The pretrained image encoder."""
    return MODELS / model / "pretrained" / "image_encoder.safetensors"


def text_tower(model: Name) -> Path:
    """The text tower, from which heads are made."""
    return MODELS / model / "pretrained" / "text_tower.safetensors"


def pretrain_curve(model: Name) -> Path:
    """The loss of pretraining by step."""
    return MODELS / model / "pretrained" / "curve.csv"


def pretrain_accuracy(model: Name) -> Path:
    """Zero-shot accuracy on the images of pretraining, in long form."""
    return MODELS / model / "pretrained" / "accuracy.csv"


def head(model: Name, dataset: Name) -> Path:
    """The zero-shot head of a dataset: `weight` [classes, D]."""
    return MODELS / model / "heads" / f"{dataset}.safetensors"


def finetuned(model: Name, dataset: Name, seed: Name) -> Path:
    """A fine-tuned image encoder."""
    return MODELS / model / "finetuned" / f"{dataset}-{seed}.safetensors"


def task_vector(model: Name, dataset: Name, seed: Name) -> Path:
    """The task vector of a dataset: fine-tuned minus pretrained weights."""
    return MODELS / model / "task_vectors" / f"{dataset}-{seed}.safetensors"


def statistic(model: Name, kind: Name, dataset: Name, seed: Name) -> Path:
    """Statistics of a fine-tuned model; `kind` is one of adamerge_core.statistics."""
    return MODELS / model / "statistics" / kind / f"{dataset}-{seed}.safetensors"


def tasks_together(tasks: Sequence[str]) -> str:
    """Name several tasks in their order: how many, and the beginning of a hash of their names."""
    return f"{len(tasks)}_tasks_{hashlib.md5(' '.join(tasks).encode()).hexdigest()[:6]}"


def traditional_mtl(model: Name, together: Name, seed: Name) -> Path:
    """The encoder trained on several tasks; `together` is their name by tasks_together."""
    return MODELS / model / "traditional_mtl" / f"{together}-{seed}.safetensors"


def training_curve(checkpoint: Path) -> Path:
    """Loss and learning rate by step, beside the checkpoint that training made."""
    return checkpoint.with_suffix(".csv")


def training_accuracy(checkpoint: Path) -> Path:
    """Accuracy on validation images, in long form, beside the checkpoint that training made."""
    return checkpoint.with_name(f"{checkpoint.stem}_accuracy.csv")


def merged(suite: Name, method: Name, seed: Name, protocol: Name = None) -> Path:
    """A merged model; `protocol` for the methods that adapt."""
    return _merged_folder(suite, method, seed) / f"{protocol or 'model'}.safetensors"


def coefficients(suite: Name, method: Name, seed: Name, protocol: Name) -> Path:
    """Learned merging coefficients."""
    return _merged_folder(suite, method, seed) / f"{protocol}_coefficients.safetensors"


def _merged_folder(suite: Name, method: Name, seed: Name) -> Path:
    return SUITES / suite / "merged" / f"seed-{seed}" / str(method)


def metrics(suite: Name, seed: Name) -> Path:
    """The folder of a suite's metrics for a seed."""
    return SUITES / suite / "metrics" / f"seed-{seed}"


def trajectory(suite: Name, method: Name, seed: Name, protocol: Name) -> Path:
    """Loss, entropy, coefficients and accuracy along an adaptation."""
    return metrics(suite, seed) / "trajectory" / f"{method}_{protocol}.csv"


def choice(suite: Name, method: Name, seed: Name) -> Path:
    """What the criterion of a method with `choose` gave for each value tried."""
    return metrics(suite, seed) / "choice" / f"{method}.csv"


def evaluation(suite: Name, method: Name, seed: Name) -> Path:
    """What was measured of a method, in long form."""
    return metrics(suite, seed) / "evaluate" / f"{method}.csv"


def hits(suite: Name, method: Name, seed: Name) -> Path:
    """Which test images a method got right, by protocol and task."""
    return metrics(suite, seed) / "hits" / f"{method}.npz"


def averages(suite: Name, method: Name, seed: Name) -> Path:
    """A method's average accuracy by protocol: what `dvc metrics show` tells."""
    return metrics(suite, seed) / f"{method}.json"


def robustness(suite: Name, corruption: Name, seed: Name) -> Path:
    """What was measured under a corruption, in long form."""
    return metrics(suite, seed) / "robustness" / f"{corruption}.csv"


def experiment(suite: Name, name: str, item: Name, seed: Name) -> Path:
    """What a stage of an experiment measured, in long form."""
    return metrics(suite, seed) / "experiments" / name / f"{item}.csv"


def experiment_model(suite: Name, name: str, item: Name, seed: Name) -> Path:
    """A merged model that stages of an experiment measure."""
    return SUITES / suite / "merged" / f"seed-{seed}" / "experiments" / name / f"{item}.safetensors"


def geometry(suite: Name, seed: Name) -> Path:
    """Cosines and lengths of a suite's task vectors."""
    return metrics(suite, seed) / "geometry" / "task_vectors.json"


def report(suite: Name) -> Path:
    """The folder of a suite's report."""
    return SUITES / suite / "report"
