"""The models that the active suite reads from the hub: pinning and fetching them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_download import check_room, fetch
from adamerge_core.vision.datasets.hub_files import (
    HubCache,
    Pin,
    model_pin_path,
    read_model_pin,
    tag_pin,
    write_pin,
)
from adamerge_core.vision.pinned_models import NEWEST, check_revision
from flows.sizes import gb
from tasks.graph.params_yaml import read_params


@dataclass(frozen=True)
class HubModel:
    """A model of the hub, as a suite names it."""

    name: str
    """Of its pin."""
    revision: str = NEWEST
    """A commit that the pin must have, or main."""
    architecture: str | None = None
    """Of a tag of open_clip's, which is then `tag`."""
    tag: str | None = None


def suite_models() -> dict[str, HubModel]:
    """Name the models that the active suite reads from the hub, each by its pin's name.

    Reads params.yaml as it stands: a check of all of it would import PyTorch.
    """
    params = read_params()
    model, checkpoints = _section(params, "model"), _section(params, "checkpoints")
    found: dict[str, HubModel] = {}
    tag = _section(model, "weights").get("tag")
    if tag:
        architecture = str(model.get("architecture"))
        name = tag_pin(architecture, str(tag))
        found[name] = HubModel(name, architecture=architecture, tag=str(tag))
    for entry in (_section(model, "weights"), *_section(checkpoints, "finetuned").values()):
        if isinstance(entry, Mapping) and {"hub", "revision"} <= entry.keys():
            name = str(entry["hub"])
            found[name] = HubModel(name, str(entry["revision"]))
    return found


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def pin(model: HubModel, revision: str | None) -> Pin:
    """Write the pin of a model, of the commit `revision`, else of the one that the suite asks for.

    Raises InputError where the hub does not have it.
    """
    from adamerge_core.vision.clip_weights import tag_on_hub
    from adamerge_core.vision.hub_models import WEIGHTS_FILES
    from adamerge_core.vision.model_listing import list_model_files

    hub_id, weights = model.name, tuple(WEIGHTS_FILES)
    if model.architecture and model.tag:
        tag = tag_on_hub(model.architecture, model.tag)
        hub_id, weights = tag.hub_id, tag.files
    found = list_model_files(model.name, hub_id, weights, revision or model.revision)
    path = model_pin_path(model.name)
    write_pin(path, found)
    size = gb(sum(file.bytes for file in found.all_files()))
    print(f"{model.name}: commit {found.revision}, {len(found.all_files())} files, {size}: {path}")
    return found


def fetch_models(
    models: Iterable[HubModel], progress: Callable[[str], Callable[[int, int, str], None]]
) -> None:
    """Fetch what is missing of the models, one after the other, at the commits of their pins.

    One without a pin gets that of the commit that the suite asks for. progress: makes, of a
    model's name, what shows how far its files are. Raises InputError listing those that are not
    fetched, after the others are.
    """
    faults, models = [], list(models)
    for number, model in enumerate(models, start=1):
        try:
            exists = model_pin_path(model.name).is_file()
            found = read_model_pin(model.name) if exists else pin(model, None)
            check_revision(found, model.revision)
            print(f"model {number}/{len(models)}: {model.name}@{found.revision}", flush=True)
            cache = HubCache.of(found)
            check_room(cache, cache.missing(found.all_files()))
            fetched = fetch(cache, found.all_files(), progress(model.name))
            print(f"  {len(fetched)} files fetched; all are there and compared")
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
