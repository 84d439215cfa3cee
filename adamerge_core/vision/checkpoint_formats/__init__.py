"""Formats of image towers in files and folders, one file a format, by name in a registry."""

import importlib
import pkgutil

from adamerge_core.vision.checkpoint_formats.registry import (
    FORMATS,
    Found,
    Wanted,
    checkpoint_format,
    format_of,
)

for _module in pkgutil.iter_modules(__path__):  # a new file's format registers itself
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FORMATS", "Found", "Wanted", "checkpoint_format", "format_of"]
