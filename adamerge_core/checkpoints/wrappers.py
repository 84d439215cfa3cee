"""Prefixes that wrappers and training programs put before the names of a model's tensors."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from adamerge_core.checkpoints.tensor_files import ByName
from adamerge_core.errors import InputError

_WRAPPERS = frozenset({"module", "_orig_mod"})
"""Parts of names by DataParallel and torch.compile, which stand before any module."""

_TOWERS = ("model.", "image_encoder.", "visual.")
"""What is before the names of an image tower inside of the models that have one."""

_DEEPEST = 16
"""Most of these before one name."""

_SHOWN = 20


class Renamed(ByName):
    """Tensors of a state dict under other names, each read when it is asked for."""

    def __init__(self, state: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        """names: the new one to the one in `state`."""
        super().__init__(names)
        self._state, self._names = state, dict(names)

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._names[name]]


def unwrapped(state: Mapping[str, Tensor], source: str) -> Renamed:
    """Take `module.` and `_orig_mod.` out of the names, wherever they stand.

    source: what messages call it. Raises InputError listing names that become one.
    """
    return Renamed(state, _unwrapped(state, source))


def split_image_tower(state: Mapping[str, Tensor], source: str) -> tuple[Renamed, Renamed]:
    """Split a state dict into the tensors of the image tower, by their names in it, and the others.

    `model.`, `image_encoder.` and `visual.` before names, in any order, lead to the tower; names
    without any of them are the tower's own. source: what messages call it. Raises InputError
    listing names that become one.
    """
    tower, beside = _unwrapped(state, source), dict[str, str]()
    for _ in range(_DEEPEST):
        prefix = next((p for p in _TOWERS if any(name.startswith(p) for name in tower)), None)
        if prefix is None:
            break
        for name in [name for name in tower if not name.startswith(prefix)]:
            original = tower.pop(name)
            beside[original if name in beside else name] = original
        tower = {name.removeprefix(prefix): original for name, original in tower.items()}
    return Renamed(state, tower), Renamed(state, beside)


def _unwrapped(names: Iterable[str], source: str) -> dict[str, str]:
    bare, faults = dict[str, str](), list[str]()
    for name in names:
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in bare:
            faults.append(f"{bare[short]} and {name}: are both {short}, but for wrappers")
        bare[short] = name
    if faults:
        raise InputError.listing(f"{source}: tensors that only prefixes tell apart", faults, _SHOWN)
    return bare
