"""The folder of a registered model, by its name in the registry."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from adamerge_core.errors import InputError
from tasks.graph import params_yaml
from tasks.tracking.database import DATABASE
from tasks.tracking.registry.registered_model import CHAMPION, ModelRegistry, model_name
from tasks.tracking.registry.versions import Version
from tasks.tracking.runs import Runs, explained

_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<number>\d+))")
_SUFFIX = model_name("")


def model_folder(address: str | None) -> Path:
    """Find the folder of `models:/NAME@ALIAS` or `models:/NAME/VERSION` in the project's MLflow.

    None is the champion of the active suite. Raises InputError where there is none, or it cannot be
    loaded, and TrackingError.
    """
    address = address or f"models:/{model_name(params_yaml.suite_name())}@{CHAMPION}"
    match = _ADDRESS.fullmatch(address)
    if match is None or not match["name"].endswith(_SUFFIX):
        raise InputError(
            f"model {address!r}: must be models:/SUITE{_SUFFIX}@ALIAS or "
            f"models:/SUITE{_SUFFIX}/VERSION"
        )
    if not DATABASE.exists():
        raise InputError(f"model {address}: nothing is registered here yet; run `adamerge run`")
    with explained():
        runs = Runs()
        registry = ModelRegistry(runs, match["name"].removesuffix(_SUFFIX))
        version = (
            registry.holder(match["alias"])
            if match["alias"]
            else registry.version(str(match["number"]))
        )
        if version is None:
            raise InputError(
                f"model {address}: no version has this alias; `adamerge models` lists them"
            )
        return _folder(runs, version, address)


def _folder(runs: Runs, version: Version, address: str) -> Path:
    if fault := version.details.unloadable:
        raise InputError(f"model {address}: {fault}")
    location = str(runs.client.get_logged_model(version.model_id).artifact_location)
    return Path(url2pathname(urlsplit(location).path))
