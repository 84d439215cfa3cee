"""Checkpoints in several files, with an index that says which tensor lies in which."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adamerge_core.checkpoints.state_dicts import open_state_dict
from adamerge_core.checkpoints.tensor_files import ByName
from adamerge_core.errors import InputError

INDEX = ".index.json"
"""What follows the name of the file that an index stands for: model.safetensors.index.json."""

_SHOWN = 20


class _Shards(ByName):
    """Tensors by name, each read from its file; those of torch files are all in memory."""

    def __init__(
        self, files: Mapping[str, Mapping[str, Tensor]], weight_map: Mapping[str, str]
    ) -> None:
        super().__init__(weight_map)
        self._files, self._weight_map = files, weight_map

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._weight_map[name]][name]


def open_shards(index: Path) -> Mapping[str, Tensor]:
    """Open the files that an index names, which lie beside it, as one state dict.

    Raises InputError listing files that are missing, broken or elsewhere, and tensors by which
    index and files differ.
    """
    weight_map = _weight_map(index)
    files, faults = dict[str, Mapping[str, Tensor]](), list[str]()
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            faults.append(f"file {file!r}: must be a name, of a file beside the index")
            continue
        try:
            files[file] = open_state_dict(index.parent / file)
        except InputError as error:
            faults.append(str(error))
    for name, file in weight_map.items():
        if file in files and name not in files[file]:
            faults.append(f"tensor {name}: is not in {file}")
    faults += [
        f"tensor {name}: is in {file} and not in the index"
        for file, tensors in files.items()
        for name in tensors
        if weight_map.get(name) != file
    ]
    if faults:
        raise InputError.listing(f"{index}: an index that does not fit its files", faults, _SHOWN)
    return _Shards(files, weight_map)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{index}: no index of a checkpoint ({error}); copy it again") from error
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise InputError(f"{index}: its weight_map must be files by names of tensors")
    return weight_map
