"""Fetching the models that the active suite reads from the hub."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph.params_yaml import read_params
from tasks.suite.sections import checkpoint_source


def suite_models() -> dict[str, Callable[[], Path]]:
    """Name the models that the active suite reads from the hub, and how each is fetched.

    Reads params.yaml as it stands: a check of all of it would import PyTorch.
    """
    params = read_params()
    model, checkpoints = _section(params, "model"), _section(params, "checkpoints")
    found: dict[str, Callable[[], Path]] = {}
    tag = _section(model, "weights").get("tag")
    if tag:
        architecture = str(model.get("architecture"))
        found[f"{architecture}, {tag}"] = partial(_fetch_tag, architecture, str(tag))
    for entry in (_section(model, "weights"), *_section(checkpoints, "finetuned").values()):
        if isinstance(entry, Mapping) and {"hub", "revision"} <= entry.keys():
            source = checkpoint_source(entry)
            found[source] = partial(_fetch_model, source)
    return found


def fetch(models: Mapping[str, Callable[[], Path]]) -> None:
    """Fetch what is missing of the models, one after the other.

    Raises InputError listing those that are not fetched, after the others are.
    """
    faults = []
    for number, (name, get) in enumerate(models.items(), start=1):
        print(f"model {number}/{len(models)}: {name}", flush=True)
        try:
            print(f"  {get()}")
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _fetch_tag(architecture: str, tag: str) -> Path:
    from adamerge_core.vision.clip_weights import PretrainedWeights, located

    return located(architecture, PretrainedWeights(tag=tag))[1]


def _fetch_model(source: str) -> Path:
    from adamerge_core.vision.hub_models import hub_folder

    return hub_folder(source)
