"""The device and the threads of a stage process."""

from collections.abc import Mapping
from typing import Any

import torch

from adamerge_core.errors import InputError


def set_up(compute: Mapping[str, Any]) -> torch.device:
    """Fix the threads of this process, and return the device to compute on.

    compute: of params.yaml, `threads` and, where the stage depends on it, `device`. Raises
    InputError where a CUDA device is asked for and there is none.
    """
    torch.set_num_threads(compute["threads"])
    device = compute.get("device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device = 'cuda': no CUDA device is here; set it to cpu")
    return torch.device(device)
