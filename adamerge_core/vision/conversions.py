"""A checkpoint written in another form."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from adamerge_core import checkpoints
from adamerge_core.errors import InputError, collected
from adamerge_core.vision.export import export_open_clip, export_transformers, is_clip_vit
from adamerge_core.vision.folder_accuracy import architecture_of
from adamerge_core.vision.image_towers import ImageTower, read_image_tower
from adamerge_core.vision.pretrained import read_pretrained, scaling_of
from adamerge_core.vision.work_folders import put_in_place, taken_fault, work_folder

FORMS = ("open_clip", "transformers", "safetensors")
"""A folder for open_clip, a folder for transformers, a file in open_clip's names."""


@dataclass(frozen=True)
class Conversion:
    """A checkpoint to be written in another form, read and checked."""

    architecture: str
    tower: ImageTower
    to: str
    """One of FORMS."""
    pretrained: ImageTower | None
    """What the text tower is taken from where the checkpoint has none."""


def open_conversion(
    source: str, to: str, architecture: str | None = None, pretrained: str | None = None
) -> Conversion:
    """Read a checkpoint, and check that it can be written in the form `to`.

    architecture: None takes what the checkpoint states. Raises InputError listing every fault.
    """
    faults: list[str] = []
    if to not in FORMS:
        faults.append(f"to = {to!r}: must be one of {', '.join(FORMS)}")
    with collected(faults):
        architecture = architecture_of(source, architecture)
    base = tower = None
    if architecture is not None and not faults:
        with collected(faults, source):
            base = read_pretrained(pretrained, architecture) if pretrained else None
            tower = read_image_tower(
                source, base.tensors if base else None, architecture=architecture
            )
        if tower:
            faults += _form_faults(architecture, tower, to, base)
    if faults or architecture is None or tower is None:
        raise InputError.listing(f"conversion of {source}", faults, shown=20)
    return Conversion(architecture, tower, to, base)


def _form_faults(
    architecture: str, tower: ImageTower, to: str, base: ImageTower | None
) -> list[str]:
    if to == "transformers" and not is_clip_vit(architecture):
        return [
            f"to = {to!r}: {architecture} has no ViT as CLIP's, and transformers knows no other; "
            "give open_clip or safetensors"
        ]
    if to != "safetensors" and is_clip_vit(architecture) and not tower.has_projection:
        return [
            f"to = {to!r}: {tower.source} has no projection (proj); give the CLIP that it was "
            "fine-tuned from (pretrained)"
        ]
    if to == "open_clip" and not tower.text_tower and not (base and base.text_tower):
        return [
            f"to = {to!r}: a whole CLIP is written, and {tower.source} has no text tower; give the "
            "CLIP that it was fine-tuned from (pretrained)"
        ]
    return []


def convert(conversion: Conversion, out: str | Path, pretrained: str | None = None) -> None:
    """Write what open_conversion read to the file or folder `out`, whole or not at all.

    pretrained: as there; its images' scaling is written. Raises InputError where something is at
    `out` already.
    """
    target, architecture, tower = Path(out), conversion.architecture, conversion.tower
    if fault := taken_fault(target):
        raise InputError(fault)
    pixels = scaling_of(architecture, pretrained)
    with work_folder(target, {"convert": tower.sha256, "to": conversion.to}) as folder:
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        if conversion.to == "safetensors":
            checkpoints.save(made, tower.tensors, {"architecture": architecture})
        elif conversion.to == "transformers":
            export_transformers(made, architecture, pixels, tower.tensors)
        else:
            base = conversion.pretrained
            text = tower.text_tower or (base.text_tower if base else {})
            export_open_clip(made, architecture, pixels, tower.tensors, text)
        put_in_place(made, target)
