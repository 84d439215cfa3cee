"""Checks of state dicts against a pretrained model, tensor by tensor, paired by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adamerge_core.checkpoints.tensor_files import CODES, ByName
from adamerge_core.errors import InputError
from adamerge_core.tensor_names import name_faults
from adamerge_core.widening import wide


def check_same_architecture(
    pretrained: Mapping[str, Tensor], models: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raise one InputError that lists every tensor by which models differ from the pretrained one.

    models: state dicts by the names that the message gives them. Faults: missing, extra,
    mis-shaped, of another dtype, non-finite, complex tensors that differ, which no rule merges, and
    what is no state dict (see state_dict_faults).
    The values of integer tensors are passed over: counters, such as a batch norm's
    num_batches_tracked, and index tables cannot be interpolated, and the pretrained ones stay.
    Tensors are paired by name, never by position, and each is read once.
    """
    faults = state_dict_faults("pretrained", pretrained)
    readable = not faults
    if readable:
        faults = non_finite("pretrained", pretrained)
    for model_name, state in models.items():
        unfit = state_dict_faults(model_name, state)
        faults += unfit
        if readable and not unfit:
            faults += _misfits(model_name, pretrained, state)
    if faults:
        faults.append(
            "fix: give checkpoints of one architecture, fine-tuned from this pretrained one"
        )
        raise InputError.listing("checkpoints that do not fit the pretrained model", faults)


def state_dict_faults(model_name: str, state: object) -> list[str]:
    """List what keeps an object from being a state dict of plain tensors, a line each.

    Faults: no mapping, names that are not told apart (tensor_names), values that are no tensors,
    and tensors that are sparse, nested, quantized, without values (meta), of a subclass that
    computes in its own way, or of a dtype that no checkpoint holds.
    """
    if not isinstance(state, Mapping):
        return [
            f"{model_name}: is {type(state).__name__}, not a state dict; give model.state_dict()"
        ]
    faults = [f"{model_name}: {fault}" for fault in name_faults(state)]
    if isinstance(state, ByName):  # plain tensors, made at each access
        return faults
    for name, value in state.items():
        fault = tensor_fault(value)
        if fault:
            faults.append(f"{model_name}: tensor {name} {fault}")
    return faults


def tensor_fault(value: object) -> str | None:
    """Say what keeps an object from being a plain tensor of numbers; None if it is one."""
    if not isinstance(value, Tensor):
        fix = "torch.from_numpy(...)" if type(value).__module__ == "numpy" else "a torch tensor"
        return f"is {type(value).__name__}, no tensor; give {fix}"
    if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
        return f"is a {type(value).__name__}, which computes in its own way; give a plain tensor"
    if value.is_nested:
        return "is nested; give a plain tensor"
    if value.layout != torch.strided:
        return f"is {str(value.layout).removeprefix('torch.')}; give tensor.to_dense()"
    if value.is_quantized:
        return "is quantized; give tensor.dequantize()"
    if value.device.type == "meta":
        return "is on the device meta and has no values; load it before"
    if value.dtype not in CODES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in CODES)
        return f"is {value.dtype}, not one of {known}; convert it"
    return None


def _misfits(
    model_name: str, pretrained: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    faults, values = _unpaired(model_name, pretrained, state), []
    for name, theirs in state.items():
        values += non_finite(model_name, {name: theirs})
        if name not in pretrained:
            continue
        ours = pretrained[name]
        layout = _layout_fault(model_name, name, ours, theirs)
        if not layout and ours.is_complex() and not torch.equal(ours.cpu(), theirs.cpu()):
            faults.append(f"{model_name}: complex tensor {name} differs from the pretrained one")
        faults += layout
    return sorted(faults) + values


def layout_faults(
    model_name: str, pretrained: Mapping[str, Tensor], layout: Mapping[str, Tensor]
) -> list[str]:
    """List the tensors of a file that cannot be read into the pretrained model's tensors.

    layout: the file's tensors by name; only shapes and dtypes are looked at. Faults: missing,
    extra, mis-shaped, and of a dtype whose values the pretrained one does not hold exactly.
    """
    faults = _unpaired(model_name, pretrained, layout)
    for name in pretrained.keys() & layout.keys():
        ours, theirs = pretrained[name], layout[name]
        if theirs.is_floating_point() and widens(theirs.dtype, ours.dtype):
            theirs = theirs.to(ours.dtype)
        faults += _layout_fault(model_name, name, ours, theirs)
    return sorted(faults)


def widens(dtype: torch.dtype, into: torch.dtype) -> bool:
    """Whether the dtype `into` holds every value of `dtype` exactly."""
    return torch.promote_types(dtype, into) == into


def _unpaired(
    model_name: str, pretrained: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    faults = [f"{model_name}: tensor {name} is missing" for name in pretrained if name not in state]
    return faults + [
        f"{model_name}: tensor {name} is extra" for name in state if name not in pretrained
    ]


def _layout_fault(model_name: str, name: str, ours: Tensor, theirs: Tensor) -> list[str]:
    if ours.shape != theirs.shape:
        return [
            f"{model_name}: tensor {name} has shape {list(theirs.shape)}, "
            f"the pretrained one {list(ours.shape)}"
        ]
    if ours.dtype != theirs.dtype:
        return [f"{model_name}: tensor {name} is {theirs.dtype}, the pretrained one {ours.dtype}"]
    return []


def non_finite(model_name: str, state: Mapping[str, Tensor]) -> list[str]:
    """List the floating-point tensors that hold infinities or NaN, a line each."""
    return [
        f"{model_name}: tensor {name} has {int((~torch.isfinite(tensor)).sum())} non-finite values"
        for name, tensor in state.items()
        if tensor.is_floating_point() and not all_finite(tensor)
    ]


def all_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds no infinity and no NaN."""
    # these make a sum non-finite too, which takes one pass; a sum of finite values may overflow
    return bool(torch.isfinite(tensor.sum(dtype=wide(tensor.dtype)))) or bool(
        torch.isfinite(tensor).all()
    )
