"""Source `hub`: a data set of the catalogue, from its files on the Hugging Face hub.

Images are read from the hub's cache, never from the network: `adamerge data download` fetches them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_files import (
    PINS,
    HubCache,
    Pin,
    fetching,
    pin_path,
    pinning,
    read_pin,
)
from adamerge_core.vision.datasets.hub_rows import HubTable
from adamerge_core.vision.datasets.published import (
    REVISION,
    HubFiles,
    PublishedDataset,
)
from adamerge_core.vision.datasets.published_source import PublishedSource, Table
from adamerge_core.vision.datasets.registry import source


@source("hub")
@dataclass(frozen=True, kw_only=True)
class Hub(PublishedSource):
    """A data set of the catalogue (`adamerge data list`), from the hub's cache.

    Every byte of its files is compared with the hub's digests before it is read.
    """

    revision: str | None = None
    """The commit that the pin must have; null for whichever it has."""
    pins: str = PINS
    """The folder of the pins, from the project's root."""
    cache: str | None = None
    """The hub's cache; null for huggingface_hub's own folder (HF_HUB_CACHE, HF_HOME)."""

    def faults(self, dataset: str) -> list[str]:
        lines = super().faults(dataset)
        if self.revision is not None and not REVISION.fullmatch(self.revision):
            lines.append(f"revision = {self.revision!r}: must be a commit of 40 hex digits")
        return lines + [
            f"{name} = {value!r}: must be the path of a folder"
            for name in ("pins", "cache")
            if (value := getattr(self, name)) is not None and not value.strip()
        ]

    def refusal(self, published: PublishedDataset) -> str | None:
        return published.refused

    def files(self) -> tuple[Path, ...]:
        return (*super().files(), pin_path(self.dataset, self.pins))

    def absent(self, path: Path) -> str:
        return f"does not exist; {fetching(self.dataset)}"

    def tables(self, published: PublishedDataset) -> Mapping[str, Table]:
        pin = read_pin(pin_path(self.dataset, self.pins)).only(self.published_splits)
        hub = _pinned_hub(published, pin, self.revision)
        cache = HubCache.of(pin, self.cache)
        faults = cache.faults(pin.all_files())
        if faults:
            subject = f"data set {pin.name}: not whole in {cache.root}; {fetching(pin.name)}"
            raise InputError.listing(subject, faults, shown=10)
        return {
            split: HubTable(
                hub,
                published.labels,
                len(published.classes),
                [(file.path, cache.path(file)) for file in files],
            )
            for split, files in pin.files.items()
        }


def _pinned_hub(published: PublishedDataset, pin: Pin, revision: str | None) -> HubFiles:
    """Give how the data set is read. Raises InputError where its pin is of something else."""
    hub = published.hub
    if hub is None:
        raise InputError(f"data set {published.name}: {published.refused}")
    faults = []
    if (pin.name, pin.hub_id) != (published.name, hub.id):
        faults.append(f"is of {pin.hub_id}; the catalogue has {hub.id}: {pinning(published.name)}")
    wanted = revision or hub.revision
    if wanted not in (None, pin.revision):
        again = f"adamerge data pin {published.name} --revision {wanted}"
        faults.append(f"is of commit {pin.revision}; asked for is {wanted}: {again}")
    if faults:
        raise InputError.listing(f"the pin of data set {published.name}", faults)
    return hub
