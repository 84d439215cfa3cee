"""Lengths of task vectors, and the angles between them."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import all_finite, tensor_fault
from adamerge_core.errors import InputError
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
