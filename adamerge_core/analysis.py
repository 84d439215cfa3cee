"""Lengths of task vectors, the angles between them, and where their signs conflict."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import all_finite, tensor_fault
from adamerge_core.errors import InputError
from adamerge_core.layers import network_order
from adamerge_core.task_vectors import TaskVectors


def inner_products(task_vectors: TaskVectors) -> Tensor:
    """The inner products of every two task vectors over all layers: [K, K] float64 on the CPU."""
    count = len(task_vectors.task_names)
    products = torch.zeros(count, count, dtype=torch.float64)
    for stack in task_vectors.layers.values():
        rows = stack.reshape(count, -1).double().cpu()
        products += rows @ rows.T
    return products


def l2_norms(products: Tensor) -> Tensor:
    """The lengths of the task vectors [K], at least 0, from their inner products [K, K].

    Raises InputError unless these are a square matrix of finite numbers, none below 0 on the
    diagonal.
    """
    _check(products)
    return products.diagonal().sqrt()


def cosine_matrix(products: Tensor) -> Tensor:
    """The cosines of every two task vectors, from their inner products [K, K].

    Gives [K, K] in [-1, 1]; a task vector of zeros has the cosine 0 to all. Raises InputError as
    l2_norms does.
    """
    norms = l2_norms(products)
    return products / torch.outer(norms, norms).clamp_min(torch.finfo(products.dtype).tiny)


def distance_matrix(products: Tensor) -> Tensor:
    """The L2 distances of every two task vectors, from their inner products [K, K].

    Gives [K, K], at least 0. Raises InputError as l2_norms does.
    """
    squares = l2_norms(products).square()
    return (squares[:, None] + squares[None, :] - 2 * products).clamp_min(0).sqrt()


def block_norms(task_vectors: TaskVectors) -> dict[str, Tensor]:
    """The lengths of the task vectors within each block of layers, from shallow to deep.

    Gives by block (see network_order) the L2 norms [K], float64 on the CPU.
    """
    names = task_vectors.layer_names
    order, blocks = network_order(names)
    count = len(task_vectors.task_names)
    squares = [
        task_vectors.layers[names[index]].reshape(count, -1).double().cpu().square().sum(dim=1)
        for index in order
    ]
    return {
        block: torch.stack(squares[rows.start : rows.stop]).sum(dim=0).sqrt()
        for block, rows in blocks.items()
    }


def sign_conflicts(task_vectors: TaskVectors) -> tuple[Tensor, float]:
    """Measure at how many weights task vectors pull in opposite directions.

    Gives the share of the weights at which each two have opposite signs, [K, K] float64 in [0, 1],
    and the share at which any two have; of the weights of layers that a task changed.
    """
    count = len(task_vectors.task_names)
    opposite, conflicting, weights = torch.zeros(count, count, dtype=torch.float64), 0, 0
    for stack in task_vectors.layers.values():
        rows = stack.reshape(count, -1).cpu()
        up, down = (rows > 0), (rows < 0)
        pairs = up.double() @ down.double().T
        opposite += pairs + pairs.T
        conflicting += int((up.any(dim=0) & down.any(dim=0)).sum())
        weights += rows.shape[1]
    return opposite / max(weights, 1), conflicting / max(weights, 1)


def entry_counts(task_vectors: TaskVectors) -> Tensor:
    """Count the entries of each task vector that are not zero: [K] float64."""
    count = len(task_vectors.task_names)
    counts = torch.zeros(count, dtype=torch.float64)
    for stack in task_vectors.layers.values():
        counts += stack.reshape(count, -1).count_nonzero(dim=1).cpu()
    return counts


def _check(products: Tensor) -> None:
    fault = tensor_fault(products)
    if fault is None and not products.is_floating_point():
        fault = f"is {products.dtype}; give floating-point numbers"
    if fault is None and (products.dim() != 2 or len(products) != products.shape[1]):
        fault = f"has shape {list(products.shape)}; give what inner_products returns, [K, K]"
    if fault is None and not (all_finite(products) and bool((products.diagonal() >= 0).all())):
        fault = "holds values that are not finite, or lengths below 0"
    if fault:
        raise InputError(f"inner products: the value {fault}")
