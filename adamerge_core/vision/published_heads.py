"""Classification heads that task_vectors and tall_masks pickled; none of their code runs."""

from pathlib import Path

from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.checkpoints.torch_files import is_torch_file, read_torch_file
from adamerge_core.errors import InputError
from adamerge_core.vision.published_classes import HEADS, PUBLISHED_CLASSES


def read_head(source: str | Path) -> tuple[Tensor, Tensor, bool]:
    """Read a pickled ClassificationHead: weight [C, D], bias [C], whether it normalises features.

    The logit scale is in the weight already. A line's published head is to be used and not built
    again where its class names or their order differ: tall_masks' FER2013. Raises InputError for
    another file, and listing what in it is no such head.
    """
    if not is_torch_file(source):
        raise InputError(f"head {source}: is no pickle; give a file as head_MNIST.pt")
    file = read_torch_file(source, PUBLISHED_CLASSES)
    if file.module not in HEADS:
        kind = file.module.replace(" ", ".") if file.module else "a state dict"
        raise InputError(f"head {source}: holds {kind}, not a ClassificationHead")
    weight, bias = file.tensors.get("weight"), file.tensors.get("bias")
    normalize = file.attributes.get("normalize")
    faults = [
        f"tensor {name}: is no part of a head"
        for name in file.tensors
        if name not in ("weight", "bias")
    ]
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        faults.append("weight: must be floats [classes, D]")
    elif bias is None or bias.shape != weight.shape[:1] or bias.dtype != weight.dtype:
        faults.append(f"bias: must be {weight.dtype} [{len(weight)}], one a class")
    if not isinstance(normalize, bool):
        faults.append(f"normalize = {normalize!r}: must be true or false")
    faults += checkpoints.non_finite("it", file.tensors)
    if faults or weight is None or bias is None or not isinstance(normalize, bool):
        raise InputError.listing(f"head {source}", faults)
    return weight, bias, normalize
