"""The catalogue: a file a data set of the field, with where it is, its classes and its prompts.

The files lie in `catalogue/`; docs/datasets.md says what each field means. Nothing here imports
torch, and nothing reads the network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from adamerge_core import parameters
from adamerge_core.errors import InputError

CATALOGUE = Path(__file__).parent / "catalogue"
"""The folder of the files."""

HUB_SPLITS = ("train", "test")
"""The splits that are fetched: others are cut from train."""

FORMATS = ("parquet", "webdataset")

REVISION = re.compile(r"[0-9a-f]{40}")
"""A commit on the hub, in full."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Licence:
    """Under what terms the images may be used."""

    says: str
    page: str


@dataclass(frozen=True)
class HubFiles:
    """Where a data set lies on the hub, and how it is read there."""

    id: str
    format: str
    """One of FORMATS."""
    image: str
    """The column of a parquet file, or the suffix of a webdataset's members."""
    label: str
    files: dict[str, tuple[str, ...]]
    """By split of HUB_SPLITS the patterns of its files."""
    config: str | None = None
    revision: str | None = None
    """A commit; null: the newest at the first download, which is recorded."""


@dataclass(frozen=True)
class Labels:
    """How stored labels become indices of classes."""

    bases: tuple[int, ...]
    """What the first class may be stored as; the labels that are found decide."""
    replace: dict[int, int]
    """Stored labels that stand for another one, before the base."""


@dataclass(frozen=True)
class Original:
    """The data set as its authors give it out."""

    torchvision: str | None = None
    """The class of torchvision.datasets that reads it."""
    files: tuple[str, ...] = ()
    """Files and folders that are read, from torchvision's root."""
    splits: dict[str, Any] | None = None
    """By split of HUB_SPLITS the class's own name of it, or a list of them."""
    refused: str | None = None
    """Why a copy in that layout cannot stand for the field's data."""


@dataclass(frozen=True)
class PublishedDataset:
    """A data set of the field, as its file says it."""

    name: str
    title: str
    licence: Licence
    hub: HubFiles | None
    labels: Labels
    images: dict[str, int]
    """By split of HUB_SPLITS."""
    published_test_images: int
    """On how many test images accuracies are published."""
    bytes: dict[str, int | None]
    """Of what is fetched (`hub`) and of the authors' own files (`original`); null: not known."""
    original: Original
    names_of: str
    """Whose class names these are: a line of checkpoints."""
    refused: str | None
    """Why it cannot be read from the hub, and what to use instead."""
    doubtful: tuple[str, ...]
    """What is second-hand, rounded, or may surprise."""
    sources: tuple[str, ...]
    templates: tuple[str, ...]
    classes: tuple[str, ...]
    """In the order of the labels."""
    variants: dict[str, tuple[str, ...]]
    """By line of checkpoints its class names, where a rebuilt head of that line has others."""

    def class_names(self, line: str | None) -> tuple[str, ...]:
        """Give the class names of a line of checkpoints; None, and any line without a variant: the
        catalogue's own.
        """
        return self.classes if line is None else self.variants.get(line, self.classes)


def published_path(name: str) -> Path:
    """Name a data set's file."""
    return CATALOGUE / f"{name}.yaml"


def published_names() -> list[str]:
    """List the catalogue's names."""
    return sorted(path.stem for path in CATALOGUE.glob("*.yaml"))


@cache
def published_dataset(name: str) -> PublishedDataset:
    """Read a data set's file. Raises InputError for an unknown name, or listing a file's faults."""
    if name not in published_names():
        raise InputError(f"data set {name!r}: unknown; known are {', '.join(published_names())}")
    return read_published(published_path(name))


def read_published(path: Path) -> PublishedDataset:
    """Read one file of the catalogue. Raises InputError listing all its faults."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no fields; see docs/datasets.md")
    faults = _faults(content)
    if faults:
        raise InputError.listing(str(path), faults)
    return _made(path.stem, content)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SECTIONS: dict[str, type] = {"licence": Licence, "labels": Labels, "original": Original}

_PLAIN = parameters.of_dataclass(PublishedDataset)


def _faults(content: Mapping[str, Any]) -> list[str]:
    """List what is wrong with a file, a line each."""
    plain = {
        name: each
        for name, each in _PLAIN.items()
        if name not in ("name", "hub", "images", "bytes", "variants", *_SECTIONS)
    }
    sections = {"hub", "images", "bytes", "variants", *_SECTIONS}
    faults = parameters.faults(plain, {k: v for k, v in content.items() if k not in sections})
    faults += [f"{name}: is missing" for name in sorted(sections - content.keys())]
    if faults:
        return faults
    for name, kind in _SECTIONS.items():
        faults += _section_faults(name, kind, content[name])
    if content["hub"] is not None:
        faults += _section_faults("hub", HubFiles, content["hub"]) or _hub_faults(content["hub"])
    elif content["refused"] is None:
        faults.append("hub: is null; then `refused` must say why")
    return faults + _count_faults(content) + _name_faults(content)


_MAPPINGS = (("hub", "files"), ("labels", "replace"), ("original", "splits"))
"""Fields of sections that hold mappings, which have checks of their own."""


def _section_faults(name: str, kind: type, values: Any) -> list[str]:
    if not isinstance(values, Mapping):
        return [f"{name} = {values!r}: must hold fields"]
    known = parameters.of_dataclass(kind)
    scalars = {
        key: each for key, each in known.items() if key not in ("files", "splits", "replace")
    }
    rest = {key: value for key, value in values.items() if key not in known or key in scalars}
    faults = [f"{name}.{line}" for line in parameters.faults(scalars, rest)]
    if name == "labels" and not _is_of(values.get("replace"), int, int):
        faults.append(f"labels.replace = {values.get('replace')!r}: must map labels to labels")
    return faults


def _is_of(value: Any, key: type, element: type) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, key) and isinstance(v, element) for k, v in value.items()
    )


def _hub_faults(hub: Mapping[str, Any]) -> list[str]:
    faults = []
    if not _HUB_ID.fullmatch(hub["id"]):
        faults.append(f"hub.id = {hub['id']!r}: must be owner/name")
    if hub["format"] not in FORMATS:
        faults.append(f"hub.format = {hub['format']!r}: must be one of {', '.join(FORMATS)}")
    revision = hub.get("revision")
    if revision is not None and not REVISION.fullmatch(revision):
        faults.append(f"hub.revision = {revision!r}: must be null or a commit of 40 hex digits")
    files = hub.get("files")
    if not isinstance(files, Mapping) or set(files) != set(HUB_SPLITS):
        faults.append(f"hub.files: must give patterns for {' and '.join(HUB_SPLITS)}")
    elif not all(isinstance(p, list) and p and _is_text(p) for p in files.values()):
        faults.append("hub.files: each split needs a list of patterns")
    return faults


def _is_text(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(each, str) and each for each in values)


def _count_faults(content: Mapping[str, Any]) -> list[str]:
    faults = []
    images, sizes = content["images"], content["bytes"]
    if not _is_of(images, str, int) or set(images) != set(HUB_SPLITS) or min(images.values()) < 1:
        faults.append(f"images = {images!r}: must give a number for {' and '.join(HUB_SPLITS)}")
    if not _is_of(sizes, str, int | None) or set(sizes) != {"hub", "original"}:  # type: ignore[arg-type]
        faults.append(f"bytes = {sizes!r}: must give numbers, or null, for hub and original")
    if content["published_test_images"] < 1:
        faults.append("published_test_images: must be at least 1")
    return faults


def _name_faults(content: Mapping[str, Any]) -> list[str]:
    """List faults of class names and templates, the variants' among them."""
    classes, variants = content["classes"], content["variants"]
    faults = [
        f"templates: {text!r} must hold {{}} once, for the class name"
        for text in content["templates"]
        if text.count("{}") != 1
    ]
    faults += [f"{key}: is empty" for key in ("classes", "templates") if not content[key]]
    if len(set(classes)) < len(classes):
        faults.append("classes: a name stands twice")
    if not isinstance(variants, Mapping):
        return [*faults, f"variants = {variants!r}: must map lines of checkpoints to class names"]
    return faults + [
        f"variants.{line}: must be {len(classes)} class names"
        for line, names in variants.items()
        if not _is_text(names) or len(names) != len(classes)
    ]


def _made(name: str, content: Mapping[str, Any]) -> PublishedDataset:
    hub = content["hub"]
    values = {
        **{key: content[key] for key in ("title", "images", "published_test_images", "bytes")},
        **{key: content[key] for key in ("names_of", "refused")},
        **{key: tuple(content[key]) for key in ("doubtful", "sources", "templates", "classes")},
        "licence": Licence(**content["licence"]),
        "labels": Labels(tuple(content["labels"]["bases"]), dict(content["labels"]["replace"])),
        "original": Original(
            **{**content["original"], "files": tuple(content["original"].get("files", ()))}
        ),
        "variants": {line: tuple(names) for line, names in content["variants"].items()},
    }
    if hub is not None:
        files = {split: tuple(hub["files"][split]) for split in HUB_SPLITS}
        values["hub"] = HubFiles(**{**hub, "files": files})
    return PublishedDataset(name=name, **{"hub": None, **values})
