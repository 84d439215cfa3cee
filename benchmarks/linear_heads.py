"""How strong the penalty of a linear probe should be, where the image tower is trained under it.

    python -m benchmarks.linear_heads
    python -m benchmarks.linear_heads --penalties 0.1 1 --steps 100

For each penalty: accuracy of the head on pretrained features, of the fine-tuned tower, and of both
towers merged by task arithmetic, on test images of two miniatures. A penalty takes about a minute
on one core.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.batches import take
from adamerge_core.evaluation import correct, percent
from adamerge_core.merging import RULES
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.classifiers import LinearHead
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.linear_probes import features, fit_probe
from adamerge_core.vision.miniature.tasks import class_names, images
from adamerge_core.vision.pretrained import encoder_of, read_pretrained, scaling_of
from adamerge_core.vision.training import TrainingSettings, finetune

ARCHITECTURE, TASKS = "efficientnet_lite0_clip", ("signs", "mnist")
COUNTS = {"train": 1000, "test": 300}
SCALING = 0.5
_BATCH = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row a penalty."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.001, 0.03, 0.3])
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = {name: [drawn(name, split, count) for split, count in COUNTS.items()] for name in TASKS}
    print(f"{'penalty':>8}  {'alone':>13}  {'fine-tuned':>13}  {'merged':>13}  first loss")
    for penalty in options.penalties:
        print(row(penalty, options.steps, data), flush=True)


def drawn(task: str, split: str, count: int) -> LabeledImages:
    """Draw images of a miniature."""
    pairs = list(images(task, split, count, seed=0))
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    return LabeledImages(np.stack([pixels for pixels, _ in pairs]), labels)


def row(penalty: float, steps: int, data: dict[str, list[LabeledImages]]) -> str:
    """Fine-tune under a probe of this penalty, merge, and measure; give it as a line."""
    base = dict(read_pretrained("imagenet", ARCHITECTURE).tensors)
    encoder = encoder_of(ARCHITECTURE, base, "imagenet", scaling_of(ARCHITECTURE, None))
    settings = TrainingSettings(steps, 32, 3e-4, 10, 0.1, 1.0)
    heads: dict[str, nn.Module] = {}
    finetuned, alone, after, losses = {}, [], [], []
    for task, (train, test) in data.items():
        encoder.load_state_dict(base)
        found = features(encoder, batches(train.images))
        labels, classes = torch.from_numpy(train.labels), len(class_names(task))
        heads[task] = LinearHead(*fit_probe(found, labels, classes, penalty))
        alone.append(accuracy(encoder, heads[task], test))
        taken = list(finetune(encoder, {task: heads[task]}, {task: train}, settings, seed=0))
        losses.append(taken[0].loss)
        after.append(accuracy(encoder, heads[task], test))
        finetuned[task] = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    vectors = TaskVectors.from_checkpoints(base, finetuned)
    encoder.load_state_dict(RULES["task_arithmetic"](vectors, scaling=SCALING))
    merged = [accuracy(encoder, heads[task], test) for task, (_, test) in data.items()]
    shown = [" / ".join(f"{value:5.1f}" for value in each) for each in (alone, after, merged)]
    return f"{penalty:>8g}  " + "  ".join(shown) + "  " + " / ".join(f"{x:.2f}" for x in losses)


def batches(pixels: np.ndarray) -> list[Tensor]:
    """Cut images into batches."""
    return [take(pixels, slice(at, at + _BATCH)) for at in range(0, len(pixels), _BATCH)]


def accuracy(encoder: nn.Module, head: nn.Module, test: LabeledImages) -> float:
    """Measure top-1 in percent."""
    return percent(correct(encoder, head, test.images, test.labels))


if __name__ == "__main__":
    main()
