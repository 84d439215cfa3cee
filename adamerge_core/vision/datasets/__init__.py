"""Kinds of sources of data sets, one file a kind, by name in a registry."""

import importlib
import pkgutil

from adamerge_core.vision.datasets.registry import SOURCES, Source, read_source, source_faults

for _module in pkgutil.iter_modules(__path__):  # a new file's kind registers itself
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["SOURCES", "Source", "read_source", "source_faults"]
