"""The registry of kinds of sources: where a data set's images come from.

A kind is one frozen dataclass in one file of this package. Its fields, with their defaults, are the
parameters of an entry of a suite's `datasets`. Nothing here or in the files of the kinds imports
torch, so that a suite is checked quickly.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from adamerge_core import parameters
from adamerge_core.errors import InputError
from adamerge_core.vision.archive import DatasetImages


class Source(ABC):
    """Where the images of a data set come from."""

    def modules(self, dataset: str) -> tuple[str, ...]:
        """Name the modules whose code makes the data set's images."""
        return (type(self).__module__,)

    def faults(self, dataset: str) -> list[str]:
        """List parameters outside their ranges, a line each: name = value, the rule."""
        return []

    def files(self) -> tuple[Path, ...]:
        """List the files and folders of the user's that the images are read from."""
        return ()

    def absent(self, path: Path) -> str:
        """Say of one of `files` that is not there what is wrong, and how to mend it."""
        return "does not exist; bring it there, or mend its path"

    def file_faults(self) -> list[str]:
        """List what keeps DVC and this source from reading the user's files, a line each."""
        return []

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Name the splits that the images have: train, val, test and, where asked for, pretrain."""

    @abstractmethod
    def images(self, dataset: str) -> DatasetImages:
        """Give the data set's images one after the other.

        Raises InputError listing what is wrong with the user's files.
        """


SOURCES: dict[str, type[Source]] = {}
"""Kinds of sources by name."""

Kind = TypeVar("Kind", bound=type[Source])


def source(name: str) -> Callable[[Kind], Kind]:
    """Register a frozen dataclass as the kind of source `name`."""

    def add(kind: Kind) -> Kind:
        if name in SOURCES:
            raise TypeError(f"source {name}: registered twice; give one of the two another name")
        SOURCES[name] = kind
        return kind

    return add


def read_source(dataset: str, entry: Mapping[str, Any]) -> Source:
    """Make a source from a data set's entry {"source": kind, parameters}.

    Raises InputError listing every fault of the entry.
    """
    faults = source_faults(dataset, entry)
    if faults:
        raise InputError.listing(f"datasets.{dataset}", faults)
    return _made(entry)


def source_faults(dataset: str, entry: Mapping[str, Any]) -> list[str]:
    """List what is wrong with a data set's entry, a line each: name = value, the rule."""
    known = ", ".join(SOURCES)
    if "source" not in entry:
        return [f"source: is missing; known are {known}"]
    if not isinstance(entry["source"], str) or entry["source"] not in SOURCES:
        return [f"source = {entry['source']!r}: unknown; known are {known}"]
    kind = SOURCES[entry["source"]]
    values = {name: value for name, value in entry.items() if name != "source"}
    return parameters.faults(parameters.of_dataclass(kind), values) or _made(entry).faults(dataset)


def _made(entry: Mapping[str, Any]) -> Source:
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry.items()
        if name != "source"
    }
    return SOURCES[entry["source"]](**values)
