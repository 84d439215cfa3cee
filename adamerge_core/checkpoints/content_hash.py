"""Hashes of what a model is, whatever file it came from."""

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from adamerge_core.checkpoints.memory import as_bytes
from adamerge_core.checkpoints.tensor_files import CODES


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors on the CPU by name, dtype, shape and bytes: 64 hexadecimal digits.

    Neither their order nor how they lie in memory matters.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        head = json.dumps([name, CODES[tensor.dtype], list(tensor.shape)])
        digest.update(head.encode())
        digest.update(as_bytes(tensor.contiguous().view(-1)))
    return digest.hexdigest()
