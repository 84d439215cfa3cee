"""Accuracy of an encoder on several tasks."""

from collections.abc import Mapping

from torch import nn

from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.vision.images import LabeledImages


def accuracy(
    encoder: nn.Module, heads: Mapping[str, nn.Module], data: Mapping[str, LabeledImages]
) -> dict[str, float]:
    """Measure top-1 in percent by task, and `average`."""
    return with_average(
        {
            name: percent(correct(encoder, heads[name], part.images, part.labels))
            for name, part in data.items()
        }
    )
