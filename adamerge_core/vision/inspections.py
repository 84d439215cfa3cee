"""What checkpoints are: format, size, whether they fit, task vectors and their angles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.analysis import cosine_matrix, inner_products, l2_norms
from adamerge_core.errors import InputError, collected
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.image_towers import ImageTower, read_image_tower
from adamerge_core.vision.pretrained import read_pretrained


@dataclass(frozen=True)
class Inspection:
    """What one checkpoint is."""

    source: str
    tower: ImageTower | None
    """None where it cannot be read."""
    faults: tuple[str, ...]
    """Why it cannot be read, does not fit the pretrained model or is not finite, a line each."""

    @property
    def dtypes(self) -> str:
        """The dtypes of its tensors, as text."""
        tensors = self.tower.tensors.values() if self.tower else ()
        return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))

    @property
    def parameters(self) -> int:
        """How many entries the image tower's tensors have."""
        return sum(t.numel() for t in self.tower.tensors.values()) if self.tower else 0


@dataclass(frozen=True)
class Comparison:
    """The task vectors of N checkpoints that fit one pretrained model."""

    pretrained: ImageTower
    sources: tuple[str, ...]
    """[N]"""
    changed: tuple[int, ...]
    """[N] tensors that differ from the pretrained model's."""
    norms: Tensor
    """[N] float64, L2."""
    shares: Tensor
    """[N] float64: the norms over that of the pretrained model's floating-point tensors."""
    cosines: Tensor
    """[N, N] float64."""


@dataclass(frozen=True)
class Inspections:
    """What checkpoints are, and how they compare."""

    each: tuple[Inspection, ...]
    comparison: Comparison | None = field(default=None)
    """None without a pretrained model, or where no checkpoint fits it."""


def inspect_checkpoints(
    sources: Sequence[str], architecture: str, pretrained: str | None = None
) -> Inspections:
    """Inspect checkpoints, and compare the task vectors of those that fit the pretrained model.

    In memory are all of them at once. Raises InputError where a source is named twice, or the
    pretrained model cannot be read.
    """
    if twice := sorted({source for source in sources if sources.count(source) > 1}):
        raise InputError(f"{', '.join(twice)}: is named twice; name each checkpoint once")
    base = read_pretrained(pretrained, architecture) if pretrained else None
    found = tuple(_inspected(source, architecture, base) for source in sources)
    fitting = [each for each in found if each.tower and not each.faults]
    if base is None or not fitting:
        return Inspections(found)
    return Inspections(found, _compared(base, fitting))


def _inspected(source: str, architecture: str, base: ImageTower | None) -> Inspection:
    faults: list[str] = []
    tower = None
    with collected(faults):
        tensors = base.tensors if base else None
        tower = read_image_tower(source, tensors, architecture=architecture)
    if tower is None and base is not None:  # what it is can be said of one that does not fit
        with collected([]):
            tower = read_image_tower(source, architecture=architecture)
    if tower and base and not faults:
        with collected(faults):
            checkpoints.check_same_architecture(base.tensors, {source: tower.tensors})
    elif tower and not faults:
        faults += checkpoints.non_finite(source, tower.tensors)
    return Inspection(source, tower, tuple(faults))


def _compared(base: ImageTower, fitting: Sequence[Inspection]) -> Comparison:
    towers = {each.source: dict(each.tower.tensors) for each in fitting if each.tower}
    vectors = TaskVectors.from_checkpoints(dict(base.tensors), towers)
    products = inner_products(vectors)
    norms = l2_norms(products)
    floating = [t.double() for t in base.tensors.values() if t.is_floating_point()]
    whole = torch.stack([tensor.square().sum() for tensor in floating]).sum().sqrt()
    layers = vectors.layers.values()
    changed = tuple(sum(bool(stack[k].any()) for stack in layers) for k in range(len(towers)))
    return Comparison(base, tuple(towers), changed, norms, norms / whole, cosine_matrix(products))
