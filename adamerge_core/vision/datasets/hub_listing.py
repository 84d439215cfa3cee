"""Which files a data set or model has on the hub at a commit; nothing here imports torch."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_download import check_allowed, retried, timeout
from adamerge_core.vision.datasets.hub_files import HubFile, Kind, Pin, file_fault
from adamerge_core.vision.datasets.published import HUB_SPLITS, HubFiles, PublishedDataset

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?(\.\w+)")


def list_hub_files(
    dataset: PublishedDataset, revision: str | None = None, endpoint: str | None = None
) -> Pin:
    """Ask the hub which files a data set has at a commit.

    revision: a commit, branch or tag; None: the catalogue's, else the newest. endpoint: the hub's
    address; None: HF_ENDPOINT.
    Raises InputError where the hub does not answer, refuses, or has not the files that the
    catalogue names; with what it has, so that the entry can be mended.
    """
    hub = hub_of(dataset)
    commit, found = list_repository("dataset", hub.id, revision or hub.revision, endpoint)
    files = {split: _matching(found, hub.files[split]) for split in HUB_SPLITS}
    faults = _listing_faults(hub, files)
    if faults:
        faults.append(f"it has: {shown_paths(found)}")
        raise InputError.listing(f"{hub.id} at {commit}: not the catalogue's files", faults)
    return Pin(dataset.name, hub.id, commit, files)


def list_repository(
    kind: Kind, hub_id: str, revision: str | None, endpoint: str | None = None
) -> tuple[str, list[HubFile]]:
    """Ask the hub for a commit, and all files at it in the order of their numbers.

    revision: a commit, branch or tag; None: the newest. Raises InputError where the hub does not
    answer, or refuses.
    """
    check_allowed()
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    wanted = revision or "main"
    subject = f"{hub_id}@{wanted}" if kind == "model" else f"{hub_id} at {wanted}"
    info = retried(
        subject,
        lambda: api.repo_info(hub_id, revision=wanted, repo_type=kind, timeout=timeout()),
    )
    found: list[Any] = retried(
        subject,
        lambda: [
            each
            for each in api.list_repo_tree(
                hub_id, recursive=True, revision=info.sha, repo_type=kind
            )
            if hasattr(each, "blob_id") and isinstance(each.path, str)  # a file, by any name
        ],
    )
    return str(info.sha), [
        HubFile(each.path, each.size, each.lfs.sha256 if each.lfs else each.blob_id)
        for each in sorted(found, key=lambda each: _natural(each.path))
    ]


def shown_paths(files: Sequence[HubFile]) -> str:
    """Name files for a message, twenty at most."""
    paths = [file.path for file in files]
    more = f" and {len(paths) - 20} more" if paths[20:] else ""
    return ", ".join(paths[:20]) + more or "no file"


def hub_of(dataset: PublishedDataset) -> HubFiles:
    """Give where a data set lies on the hub. Raises InputError where the catalogue refuses it."""
    if dataset.refused or dataset.hub is None:
        raise InputError(f"data set {dataset.name}: {dataset.refused}")
    return dataset.hub


def _matching(found: Iterable[HubFile], patterns: Sequence[str]) -> tuple[HubFile, ...]:
    return tuple(
        file
        for file in found
        if any(fnmatch.fnmatchcase(file.path, pattern) for pattern in patterns)
    )


def _natural(path: str) -> list[Any]:
    """Order shards by their numbers: 2.tar before 10.tar."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]


def _listing_faults(hub: HubFiles, files: dict[str, tuple[HubFile, ...]]) -> list[str]:
    faults = [
        f"split {split}: no file matches {' or '.join(hub.files[split])}"
        for split in HUB_SPLITS
        if not files[split]
    ]
    for listed in files.values():
        faults += [f for each in listed if (f := file_fault(each.path, each.bytes, each.digest))]
        shards = [m for each in listed if (m := _SHARD.fullmatch(each.path))]
        numbers = sorted(int(m[2]) for m in shards)
        if shards and numbers != list(range(int(shards[0][3]))):
            faults.append(f"{shards[0][0]}: of {int(shards[0][3])} files {len(shards)} are there")
    return faults
