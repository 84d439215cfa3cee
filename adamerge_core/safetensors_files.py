"""Safetensors files opened with their faults named. Nothing here imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from adamerge_core.errors import InputError


@contextmanager
def open_safetensors(path: Path, framework: str = "pt") -> Iterator[safe_open]:
    """Open a safetensors file and check its layout: every byte belongs to one tensor.

    framework: pt gives torch tensors, np gives numpy arrays. Raises InputError when the file is
    missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file; give the path of a .safetensors file")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"checkpoint {path} ({path.stat().st_size} bytes): not a whole safetensors file "
            f"({error}); copy or make it again"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the text entries that a safetensors file holds beside its tensors.

    Raises InputError when the file is missing, truncated or no safetensors file.
    """
    with open_safetensors(path) as file:
        return dict(file.metadata() or {})
