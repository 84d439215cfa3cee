"""LiNeS: scale the task vectors linearly in the depth of their layers (arXiv 2410.17146)."""

import re
from collections.abc import Iterable

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.task_vectors import TaskVectors

BLOCK = re.compile(r"(?:[^.]+\.)*?\d+(?:\.\d+)*(?=\.|$)")
"""A name up to the end of its first numbers: resblocks.7, blocks.3.1, layer3.1."""


@merge_rule(source="arXiv 2410.17146; github.com/wang-kee/LiNeS")
def lines(task_vectors: TaskVectors, alpha: float | None = None, beta: float = 0.5) -> StateDict:
    """Add the task vectors with a coefficient that grows linearly with the depth of the layer.

    alpha: the coefficient of the first block; None takes 1 / K. beta: its growth to the last block
    (see scale_by_depth). There is no other scaling.
    """
    return task_arithmetic(scale_by_depth(task_vectors, alpha, beta), scaling=1.0)


@before(source="arXiv 2410.17146; github.com/wang-kee/LiNeS", start=1.0)
def scale_by_depth(
    task_vectors: TaskVectors, alpha: float | None = None, beta: float = 0.5
) -> TaskVectors:
    """Scale each layer of the task vectors by a factor that is linear in the layer's depth.

    The factor is lambda^l = alpha + beta (b - 1) / (B - 1) in block b of B. Tensors outside the
    blocks take alpha, be they before or after, as in the published code; the paper's formula has
    blocks only. The blocks are those of the whole model, changed or not (see block_of).

    alpha: None takes 1 / K. That is the published choice for merging, the L1 norm of sum_k tau_k
    over that of the merged vector over K, where the merged vector is the sum. beta: the authors
    choose it on validation data, from 0.1 to 1 in steps of 0.1; the default is the middle. For one
    task they take beta = 1 - alpha. Raises InputError if alpha or beta is not a number from 0 up,
    or no name of the model has a block.
    """
    if alpha is None:
        alpha = 1 / len(task_vectors.task_names)
    faults = [
        f"{name} = {value}: must be at least 0 and finite"
        for name, value in {"alpha": alpha, "beta": beta}.items()
        if not 0 <= value < float("inf")
    ]
    if faults:
        raise InputError.listing("layer scaling", faults)
    blocks = block_of(task_vectors.pretrained)
    scales = {
        name: alpha + beta * index / max(count - 1, 1) for name, (index, count) in blocks.items()
    }
    return task_vectors.map_layers(lambda name, stack: stack * scales.get(name, alpha))


def block_of(layer_names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Find the block of each name that lies in one: (index of the block, number of blocks).

    A block is what the first numbers of a name count: resblocks.7 of a ViT, blocks.3.1 of an
    EfficientNet, layer3.1 of a ResNet. Blocks whose names differ only in the numbers make one tower
    and are counted by them, from 0; two towers are counted apart. The order of the names does not
    matter: a checkpoint on disk lists them alphabetically. Raises InputError if no name has a
    block.
    """
    blocks = {name: match[0] for name in layer_names if (match := BLOCK.match(name))}
    if not blocks:
        raise InputError(
            "no tensor's name has the number of a block (as resblocks.7 or layer3.1 do), so its "
            "depth is unknown; choose another method for this model"
        )
    towers: dict[str, set[tuple[int, ...]]] = {}
    for block in blocks.values():
        towers.setdefault(_tower(block), set()).add(_numbers(block))
    orders = {tower: sorted(numbers) for tower, numbers in towers.items()}
    return {
        name: (orders[_tower(block)].index(_numbers(block)), len(orders[_tower(block)]))
        for name, block in blocks.items()
    }


def _tower(block: str) -> str:
    return re.sub(r"\d+", "#", block)


def _numbers(block: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", block))
