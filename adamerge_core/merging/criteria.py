"""What the value of a method's parameter is chosen by, on validation images."""

from torch import Tensor

from adamerge_core.entropy import softmax_entropy
from adamerge_core.merging.registry import criterion


@criterion(source="validation accuracy, as in arXiv 2212.04089", needs="labels", better="higher")
def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Measure top-1 accuracy: the percentage of images whose most likely class is the true one.

    logits: [N, classes]; targets: labels [N]. Returns [N] float32, 100 or 0.
    """
    return 100 * (logits.argmax(dim=-1) == targets).float()


@criterion(source="arXiv 2310.02575, equation 5", better="lower")
def entropy(logits: Tensor, targets: None) -> Tensor:
    """Measure the entropy of the model's predictions, without labels.

    logits: [N, classes]. Returns [N] in nats, in [0, log(classes)].
    """
    return softmax_entropy(logits)


@criterion(source="the hard labels of arXiv 2412.19098", needs="experts", better="higher")
def agreement(logits: Tensor, targets: Tensor) -> Tensor:
    """Measure the percentage of images on which model and expert agree, without labels.

    logits: [N, classes]; targets: the expert's class probabilities [N, classes]. Returns [N]
    float32, 100 or 0.
    """
    return 100 * (logits.argmax(dim=-1) == targets.argmax(dim=-1)).float()
