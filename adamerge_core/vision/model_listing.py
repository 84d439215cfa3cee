"""Which files a model of the hub has at a commit, and which of them are read."""

from collections.abc import Sequence

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_files import Pin, file_fault
from adamerge_core.vision.datasets.hub_listing import list_repository, shown_paths
from adamerge_core.vision.hub_models import wanted_files


def list_model_files(
    name: str,
    hub_id: str,
    weights: Sequence[str],
    revision: str | None = None,
    endpoint: str | None = None,
) -> Pin:
    """Ask the hub which files of a model are read, at a commit.

    name: of the pin. weights: names of files of weights, the first that is there being read, with
    the configurations beside it. revision: a commit, branch or tag; None: the newest.
    Raises InputError where the hub does not answer, refuses, or has none of the weights.
    """
    commit, found = list_repository("model", hub_id, revision, endpoint)
    wanted = wanted_files([file.path for file in found], weights)
    files = tuple(file for file in found if file.path in wanted)
    faults = [f for file in files if (f := file_fault(file.path, file.bytes, file.digest))]
    if not any(file.path.endswith(_WEIGHTS) for file in files):
        faults.append(f"it has no weights, {' or '.join(weights)}, but: {shown_paths(found)}")
    if faults:
        raise InputError.listing(f"{hub_id} at {commit}: no model that is read", faults)
    return Pin(name, hub_id, commit, {"model": files}, "model")


_WEIGHTS = (".safetensors", ".bin", ".pt")
