"""A checkpoint written in another form."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from adamerge_core import checkpoints
from adamerge_core.errors import InputError, collected
from adamerge_core.vision.architectures import (
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
    is_classifier,
    split_name,
)
from adamerge_core.vision.classifier_exports import export_classifier, save_classifier
from adamerge_core.vision.export import export_open_clip, export_transformers, is_clip_vit
from adamerge_core.vision.folder_accuracy import architecture_of
from adamerge_core.vision.image_towers import ImageTower, read_image_tower
from adamerge_core.vision.pretrained import read_pretrained, scaling_of
from adamerge_core.vision.task_heads import checkpoint_head
from adamerge_core.vision.work_folders import put_in_place, taken_fault, work_folder

SAFETENSORS = "safetensors"

FORMS = ("open_clip", TRANSFORMERS, SAFETENSORS, TIMM, TORCHVISION)
"""A folder for a library, or a file: of a CLIP its image tower in open_clip's names, of a
classifier all of it in its own. A CLIP goes to open_clip and transformers, a classifier to its
library.
"""


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
            faults += (
                _classifier_faults(architecture, tower, to)
                if is_classifier(architecture)
                else _form_faults(architecture, tower, to, base)
            )
    if faults or architecture is None or tower is None:
        raise InputError.listing(f"conversion of {source}", faults, shown=20)
    return Conversion(architecture, tower, to, base)


def _classifier_faults(architecture: str, tower: ImageTower, to: str) -> list[str]:
    library, _ = split_name(architecture) or ("", "")
    faults = []
    if to not in (library, SAFETENSORS):
        faults.append(f"to = {to!r}: {architecture} is {library}'s; give {library} or safetensors")
    if not tower.head:
        faults.append(f"{tower.source}: has no head, and a whole classifier is written")
    return faults


def _form_faults(
    architecture: str, tower: ImageTower, to: str, base: ImageTower | None
) -> list[str]:
    if to in (TIMM, TORCHVISION):
        return [f"to = {to!r}: {architecture} is a CLIP; give open_clip, transformers, safetensors"]
    if to == TRANSFORMERS and not is_clip_vit(architecture):
        return [
            f"to = {to!r}: {architecture} has no ViT as CLIP's, and transformers knows no other; "
            "give open_clip or safetensors"
        ]
    if to != SAFETENSORS and is_clip_vit(architecture) and not tower.has_projection:
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
        if is_classifier(architecture):
            _write_classifier(conversion, made)
        elif conversion.to == SAFETENSORS:
            checkpoints.save(made, tower.tensors, {"architecture": architecture})
        elif conversion.to == TRANSFORMERS:
            export_transformers(made, architecture, pixels, tower.tensors)
        else:
            base = conversion.pretrained
            text = tower.text_tower or (base.text_tower if base else {})
            export_open_clip(made, architecture, pixels, tower.tensors, text)
        put_in_place(made, target)


def _write_classifier(conversion: Conversion, path: Path) -> None:
    architecture, tower = conversion.architecture, conversion.tower
    head = checkpoint_head(tower, None)
    if conversion.to == SAFETENSORS:
        save_classifier(path, architecture, tower.tensors, head, {"architecture": architecture})
    else:
        export_classifier(path, architecture, tower.tensors, head)
