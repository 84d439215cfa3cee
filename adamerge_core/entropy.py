"""The entropy of predictions: what adaptation minimises, and what models are chosen by."""

import torch
from torch import Tensor


def softmax_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of softmax(logits) (AdaMerging, equation 5).

    logits: [..., classes] -> [...], in [0, log(classes)].
    """
    log_probabilities = torch.log_softmax(logits, dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
