"""What adaptation minimises: losses of the merged model's logits, by name in a registry."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from adamerge_core.entropy import softmax_entropy
from adamerge_core.merging.registry import Entry, register

Loss = Callable[[Tensor, Tensor | None], Tensor]

OBJECTIVES: dict[str, Entry] = {}
"""Objectives by name: (logits [N, classes], targets of these N or None) -> [N], one an image.
Targets are labels [N] int64 or probabilities [N, classes]."""


def objective(*, source: str, needs: str | None = None) -> Callable[[Loss], Loss]:
    """Register a function (logits, targets) -> [N] as an objective under its own name.

    needs: what the targets are: "experts" (see expert_targets), "labels"; None where it takes none.
    Raises TypeError where there is an objective of that name.
    """
    return register(OBJECTIVES, 2, source=source, needs=needs)


@objective(source="arXiv 2310.02575, equation 5")
def entropy(logits: Tensor, targets: Tensor | None) -> Tensor:
    """Shannon entropy of the merged model's predictions; no targets."""
    return softmax_entropy(logits)


@objective(source="arXiv 2310.02575, the supervised reference", needs="labels")
def cross_entropy(logits: Tensor, targets: Tensor | None) -> Tensor:
    """Cross-entropy with true labels: what entropy stands in for, an upper reference.

    Under probabilities as targets it is the soft cross-entropy, -sum_c p_c log softmax(logits)_c.
    """
    return F.cross_entropy(logits, _matching(targets, logits), reduction="none")


@objective(source="arXiv 2412.19098, expert-guided self-labelling", needs="experts")
def self_labelling(logits: Tensor, targets: Tensor | None) -> Tensor:
    """Cross-entropy with the experts' own predictions as hard labels (SyMerge).

    As in the published code (its loss "crosspseudoconf"): the label is the expert's most likely
    class, and an image on which the merged model names another class with more confidence than the
    expert counts nothing. Targets are the experts' probabilities; plain labels are taken as certain
    ones, so none is dropped. Two differences: the published code divides by the number of images
    kept, here a dropped one is a zero in the mean over all, so that micro-batches change nothing;
    and it takes an optimizer step a task, here the tasks' losses are summed. The published method
    also trains one layer a task, which is no part of the loss.
    """
    chosen = _matching(targets, logits)
    if chosen.dim() == 1:
        return F.cross_entropy(logits, chosen, reduction="none")
    expert_confidence, labels = chosen.max(dim=-1)
    with torch.no_grad():
        confidence, guesses = logits.softmax(dim=-1).max(dim=-1)
        kept = (guesses == labels) | (expert_confidence >= confidence)
    return torch.where(kept, F.cross_entropy(logits, labels, reduction="none"), 0.0)


def _matching(targets: Tensor | None, logits: Tensor) -> Tensor:
    """Targets on the logits' device; probabilities in their dtype."""
    if targets is None:
        raise TypeError("this objective takes targets; none were given")
    return targets.to(logits.device, logits.dtype if targets.is_floating_point() else torch.int64)
