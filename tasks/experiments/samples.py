"""Entropy and loss, image by image, and what they have to do with each other."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from adamerge_core.entropy import softmax_entropy
from adamerge_core.rank_correlation import spearman
from adamerge_core.vision.choice import all_logits
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.measuring import Row
from tasks.shared.long_tables import ACCURACY, ENTROPY
from tasks.suite.experiments.experiment import ALL_TASKS
from tasks.suite.experiments.surrogate import LOSS, SPEARMAN, TENTHS

Samples = dict[str, list[float]]
"""By metric a value an image."""


def samples(encoder: nn.Module, head: nn.Module, data: LabeledImages) -> Samples:
    """Measure entropy and cross-entropy in nats, and 100 or 0 for right or wrong, of each image."""
    logits = all_logits(encoder, {"": head}, {"": data})[""].double()
    labels = torch.from_numpy(np.array(data.labels))
    return {
        ENTROPY: softmax_entropy(logits).tolist(),
        LOSS: F.cross_entropy(logits, labels, reduction="none").tolist(),
        ACCURACY: (100.0 * (logits.argmax(dim=-1) == labels)).tolist(),
    }


def correlated(found: Mapping[str, Samples]) -> list[Row]:
    """Correlate entropy and loss per task and over all images; give the means and the tenths."""
    rows: list[Row] = []
    for task, each in found.items():
        entropy, loss = np.array(each[ENTROPY]), np.array(each[LOSS])
        values = {SPEARMAN: spearman(entropy, loss)}
        values |= {name: float(np.mean(each[name])) for name in (ENTROPY, LOSS, ACCURACY)}
        values |= _tenths(entropy, loss)
        rows += [{"task": task, "metric": name, "value": v} for name, v in values.items()]
    pooled = [np.concatenate([each[name] for each in found.values()]) for name in (ENTROPY, LOSS)]
    return [*rows, {"task": ALL_TASKS, "metric": SPEARMAN, "value": spearman(*pooled)}]


def _tenths(entropy: np.ndarray, loss: np.ndarray) -> dict[str, float]:
    """The mean entropy and loss of each tenth of the images, by entropy; fewer than ten images
    stand in several.
    """
    order, means = np.argsort(entropy, kind="stable"), {}
    for number in TENTHS:
        first, end = ((number - 1) * len(order) // 10, number * len(order) // 10)
        part = order[first : max(end, first + 1)]
        means[f"{ENTROPY}_{number}"] = float(entropy[part].mean())
        means[f"{LOSS}_{number}"] = float(loss[part].mean())
    return means
