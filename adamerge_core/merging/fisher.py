"""Fisher merging: the mean of the fine-tuned models, weighted by Fisher information."""

from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import merge_rule
from adamerge_core.statistics.checks import check_statistics
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2111.09832", needs="fisher_diagonal")
def fisher_merging(
    task_vectors: TaskVectors, fisher: Mapping[str, StateDict], floor: float = 1e-6
) -> StateDict:
    """Average the fine-tuned models, entry by entry weighted by their Fisher information.

    This is sum_k F_k theta_k / sum_k F_k, each F_k scaled to the same norm. fisher: per task the
    result of statistics.fisher_diagonal; layers without it, such as buffers, are averaged. floor:
    the least weight of an entry, above 0, where the root mean square entry of each F_k over the
    layers is 1; entries that no task cares about are averaged.

    The paper leaves a factor lambda_k per model free; as in the authors' code it is one over the L2
    norm of F_k, or the least sure model would outweigh the others everywhere. Their code raises F
    to 1e-6, before it is scaled and for one target model only, which then gets the entries that no
    model cares about; FusionBench's adds 1e-6, again before scaling. Here no task is the target,
    and the floor is applied after scaling: before it, the surest model would get those entries.
    Raises InputError if floor is not above 0, or listing what does not fit (check_statistics).
    """
    if not 0 < floor < float("inf"):
        raise InputError(f"floor = {floor}: the least weight of an entry must be above 0")
    check_statistics("fisher_diagonal", task_vectors, fisher, lambda tensor: tuple(tensor.shape))
    scales = {name: _scale(task_vectors, fisher[name]) for name in task_vectors.task_names}
    merged = dict(task_vectors.pretrained)
    for name in task_vectors.layer_names:
        weights = [
            fisher[task][name] * scale for task, scale in scales.items() if name in fisher[task]
        ]
        mean = _weighted_mean(task_vectors.layers[name], weights, floor)
        merged[name] = merged[name] + mean
    return merged


def _scale(task_vectors: TaskVectors, fisher: StateDict) -> float:
    """One over the root mean square entry over the layers; 0 where all entries are 0."""
    entries, total = 0, 0.0
    for name in task_vectors.layer_names:
        if name in fisher:
            entries += fisher[name].numel()
            total += float(torch.linalg.vector_norm(fisher[name], dtype=torch.float64)) ** 2
    return (entries / total) ** 0.5 if total else 0.0


def _weighted_mean(stack: Tensor, weights: list[Tensor], floor: float) -> Tensor:
    """The mean of a layer's task vectors [K, *shape], in their dtype; plain without weights."""
    if not weights:
        return stack.mean(dim=0)
    weight = torch.stack(weights).to(stack.device).clamp_min(floor)
    return ((weight * stack).sum(dim=0) / weight.sum(dim=0)).to(stack.dtype)
