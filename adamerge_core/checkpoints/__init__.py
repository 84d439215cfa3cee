"""Checkpoints: state dicts read, written, and checked against one another by tensor name."""

from adamerge_core.checkpoints.architecture import (
    all_finite,
    check_same_architecture,
    layout_faults,
    non_finite,
    state_dict_faults,
    tensor_fault,
    widens,
)
from adamerge_core.checkpoints.state_dicts import StateDict, load, save
from adamerge_core.safetensors_files import read_metadata

__all__ = [
    "StateDict",
    "all_finite",
    "check_same_architecture",
    "layout_faults",
    "load",
    "non_finite",
    "read_metadata",
    "save",
    "state_dict_faults",
    "tensor_fault",
    "widens",
]
