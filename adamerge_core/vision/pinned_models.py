"""Models of the hub that a suite reads, each at the commit of its pin; nothing here connects."""

from collections.abc import Mapping
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_files import HubCache, Pin, fetching, read_model_pin

NEWEST = "main"
"""What a suite writes in place of a commit: whichever the pin has."""


def pinned_model(hub_id: str, revision: str) -> str:
    """Give `org/name@commit` of a model whose pinned files are all in the hub's cache.

    revision: a commit that the pin must have, or `main`. Raises InputError where the model has no
    pin or another commit's, and listing the files that are missing or not as the pin has them.
    """
    pin = read_model_pin(hub_id)
    check_revision(pin, revision)
    _check_files(pin)
    return f"{pin.hub_id}@{pin.revision}"


def source_of(entry: Mapping[str, str]) -> str:
    """Give what reads checkpoints a suite's entry: its `file`, or its model of the `hub` at the
    pinned commit. Raises InputError as pinned_model.
    """
    return entry["file"] if "file" in entry else pinned_model(entry["hub"], entry["revision"])


def pinned_file(name: str) -> Path:
    """Give the file of weights of a model by its pin's name. Raises InputError as pinned_model."""
    pin = read_model_pin(name)
    cache = _check_files(pin)
    return next(cache.path(f) for f in pin.all_files() if not f.path.endswith(".json"))


def check_revision(pin: Pin, revision: str | None) -> None:
    """Raise InputError where the pin is of another commit than the suite asks for."""
    if revision not in (None, NEWEST, pin.revision):
        raise InputError(
            f"the pin of {pin.name} is of commit {pin.revision}, but the suite asks for "
            f"{revision}: adamerge data pin {pin.name} --revision {revision}"
        )


def _check_files(pin: Pin) -> HubCache:
    cache = HubCache.of(pin)
    faults = cache.faults(pin.all_files())
    if faults:
        subject = f"model {pin.name}: not whole in {cache.root}; {fetching()}"
        raise InputError.listing(subject, faults, shown=10)
    return cache
