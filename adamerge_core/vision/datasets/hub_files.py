"""Files of a data set or model on the hub: which they are at one commit, and their copies in the
cache.

The list of the files at one commit, the pin, is a small file that belongs beside the suite in
version control: with it the same bytes are read everywhere. The cache is the hub's own, in the
layout of huggingface_hub, so what any program fetched there is found. Nothing here reads the
network or imports torch.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.published import HUB_SPLITS, REVISION

PINS = "pins"
"""The folder of the pins, from the project's root."""

Kind = Literal["dataset", "model"]

_GROUPS: dict[Kind, tuple[str, ...]] = {"dataset": HUB_SPLITS, "model": ("model",)}
"""What the files of a pin stand under, by its kind."""

Progress = Callable[[int, int, str], None]
"""Is told what is done, of how much, and of what."""

_BLOCK = 2**20  # bytes that are hashed at a time


@dataclass(frozen=True)
class HubFile:
    """A file at one commit of the hub."""

    path: str
    """In its repository."""
    bytes: int
    digest: str
    """Of its content, in hexadecimal: SHA-256 of 64 digits, or git's SHA-1 of 40."""


@dataclass(frozen=True)
class Pin:
    """The files of a data set, or of a model, at one commit of the hub."""

    name: str
    """A data set's in the catalogue; a model's is its id on the hub, or ARCHITECTURE/TAG."""
    hub_id: str
    revision: str
    files: dict[str, tuple[HubFile, ...]]
    """By split of HUB_SPLITS; those of a model under `model`."""
    kind: Kind = "dataset"

    def all_files(self) -> list[HubFile]:
        """List all files, each once."""
        return list(dict.fromkeys(file for files in self.files.values() for file in files))

    def only(self, splits: Iterable[str]) -> "Pin":
        """The pin of some splits alone."""
        return replace(self, files={split: self.files[split] for split in splits})


def pin_path(dataset: str, folder: str | os.PathLike[str] = PINS) -> Path:
    """Name the file of a data set's pin."""
    return Path(folder) / f"{dataset}.json"


def model_pin_path(model: str) -> Path:
    """Name the file of a model's pin; the model by its pin's name."""
    return Path(PINS) / "models" / f"{model.replace('/', '--')}.json"


def tag_pin(architecture: str, tag: str) -> str:
    """Name the pin of open_clip's weights by a tag."""
    return f"{architecture}/{tag}"


def write_pin(path: Path, pin: Pin) -> None:
    """Write a pin. Its bytes depend on the pin alone."""
    content = {
        pin.kind: pin.name,
        "hub_id": pin.hub_id,
        "revision": pin.revision,
        "files": {group: [vars(file) for file in listed] for group, listed in pin.files.items()},
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_pin(path: Path) -> Pin:
    """Read a data set's pin. Raises InputError where it is missing, or listing its faults."""
    return _read(path, "dataset", fetching(path.stem), pinning(path.stem))


def read_model_pin(model: str) -> Pin:
    """Read a model's pin, by its name. Raises InputError as read_pin does."""
    return _read(model_pin_path(model), "model", fetching(), pinning(model))


def _read(path: Path, kind: Kind, fetch: str, pin: str) -> Pin:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {fetch}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {pin}") from error
    faults = _pin_faults(content, kind)
    if faults:
        raise InputError.listing(f"{path}: not a list of files on the hub; {pin}", faults, shown=10)
    files = {
        group: tuple(HubFile(**each) for each in content["files"][group]) for group in _GROUPS[kind]
    }
    return Pin(content[kind], content["hub_id"], content["revision"], files, kind)


def fetching(dataset: str = "") -> str:
    """Say how to fetch a data set; without a name all that the active suite reads."""
    return f"fetch it: adamerge data download {dataset}".rstrip()


def pinning(name: str) -> str:
    """Say how to write the pin of a data set or model anew."""
    return f"write it anew: adamerge data pin {name}"


def _pin_faults(content: Any, kind: Kind) -> list[str]:
    if not isinstance(content, dict):
        return ["it holds no fields"]
    faults = [
        f"{name} = {content.get(name)!r}: must be text"
        for name in (kind, "hub_id")
        if not isinstance(content.get(name), str)
    ]
    if not isinstance(revision := content.get("revision"), str) or not REVISION.fullmatch(revision):
        faults.append(f"revision = {revision!r}: must be a commit of 40 hex digits")
    files, groups = content.get("files"), _GROUPS[kind]
    if not isinstance(files, dict) or not all(isinstance(files.get(g), list) for g in groups):
        return [*faults, f"files: must list those of {' and '.join(groups)}"]
    listed = [each for group in groups for each in files[group]]
    return faults + [fault for each in listed if (fault := _entry_fault(each))]


def _entry_fault(entry: Any) -> str | None:
    if not isinstance(entry, dict) or set(entry) != {"path", "bytes", "digest"}:
        return f"{entry!r}: must have path, bytes and digest"
    return file_fault(entry["path"], entry["bytes"], entry["digest"])


def file_fault(path: Any, size: Any, digest: Any) -> str | None:
    """Say what keeps a file of the hub from being fetched; None if nothing does."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path:
        return f"path {path!r}: must be printable text, with / between folders"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return f"path {path!r}: must lie in its repository"
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return f"{path}: size {size!r} must be a number of bytes"
    if not isinstance(digest, str) or len(digest) not in (40, 64) or not _is_hex(digest):
        return f"{path}: digest {digest!r} must be 40 or 64 hex digits"
    return None


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdef" for c in text)


# --- the cache ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubCache:
    """The copies of a pin's files."""

    root: Path
    """Of the cache."""
    pin: Pin

    @classmethod
    def of(cls, pin: Pin, folder: str | os.PathLike[str] | None = None) -> "HubCache":
        """Open the cache in a folder; None: huggingface_hub's (HF_HUB_CACHE, HF_HOME)."""
        if folder is None:
            from huggingface_hub.constants import HF_HUB_CACHE

            folder = HF_HUB_CACHE
        return cls(Path(folder), pin)

    @property
    def folder(self) -> Path:
        """Of the data set or model."""
        return self.root / f"{self.pin.kind}s--{self.pin.hub_id.replace('/', '--')}"

    def path(self, file: HubFile) -> Path:
        """Where a file is read: a link to its content, where the file system has links."""
        return self.folder / "snapshots" / self.pin.revision / file.path

    def content(self, file: HubFile) -> Path:
        """Where a file's content lies, by its digest."""
        return self.folder / "blobs" / file.digest

    def missing(self, files: Iterable[HubFile]) -> list[HubFile]:
        """List the files that are not in the cache, or not as large as they must be."""
        return [file for file in files if _size(self.path(file)) != file.bytes]

    def faults(self, files: Iterable[HubFile], progress: Progress | None = None) -> list[str]:
        """Read every byte of the copies and list those that are missing or not as the hub has them.

        progress: is told after each block (bytes read, all bytes, "bytes").
        """
        files = list(files)
        done, total = 0, sum(file.bytes for file in files)
        faults = []
        for file in files:
            path = self.path(file)
            if _size(path) != file.bytes:
                found = "is missing" if _size(path) is None else f"has {_size(path)} bytes"
                faults.append(f"{file.path}: {found}; must have {file.bytes} bytes")
            elif digest_of(path, file, _further(progress, done, total)) != file.digest:
                faults.append(f"{file.path}: its content is not the hub's (digest {file.digest})")
            done += file.bytes
        return faults


def _further(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(done + more, total, "bytes") if progress else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def digest_of(path: Path, like: HubFile, progress: Callable[[int], None] | None = None) -> str:
    """Compute a file's digest, of the kind that `like` has. progress: is told the bytes read."""
    if len(like.digest) == 64:
        digest = hashlib.sha256()
    else:  # git's, of a file that is small
        digest = hashlib.sha1(f"blob {like.bytes}\0".encode(), usedforsecurity=False)
    done = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done)
    return digest.hexdigest()
