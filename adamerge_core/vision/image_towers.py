"""Image towers out of anyone's checkpoints: whatever the format, by open_clip's names, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.checkpoints.content_hash import content_sha256
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import (
    alike,
    configuration,
    is_classifier,
    uses_quick_gelu,
    with_activation,
)
from adamerge_core.vision.checkpoint_formats import Found, Wanted, format_of
from adamerge_core.vision.checkpoint_formats.contents import open_content
from adamerge_core.vision.class_lists import ClassList
from adamerge_core.vision.clip import create_clip
from adamerge_core.vision.openai_files import NUMBERS

_PROJECTION = "proj"

_SHOWN = 20


@dataclass(frozen=True)
class ImageTower:
    """The image tower of a CLIP, or the encoder of a plain classifier, as a checkpoint gave it."""

    tensors: Mapping[str, Tensor]
    """By open_clip's names below `visual.`, or by the classifier's own without those of its head;
    on the CPU, in the dtype that the file has."""
    format: str
    """What it was read as, in words."""
    source: str
    """The path or the hub's id, as the user gave it."""
    text_tower: Mapping[str, Tensor]
    """The other tensors of a whole CLIP, by open_clip's names; empty where it is not whole."""
    has_projection: bool
    """Whether `proj` is among the tensors."""
    sha256: str
    """Of the tensors: names, dtypes, shapes and bytes."""
    remarks: tuple[str, ...]
    """What was left out or converted, a line each, for the user."""
    head: Mapping[str, Tensor] = field(default_factory=dict)
    """Of a classifier: `weight` [classes, D] and perhaps `bias` [classes]; else empty."""
    classes: ClassList | None = None
    """The names of the head's classes, where the checkpoint has them."""


def read_image_tower(
    source: str | Path, pretrained: Mapping[str, Tensor] | None = None, *, architecture: str
) -> ImageTower:
    """Read the image tower of a CLIP, or the encoder of a classifier, out of a file, a folder, or a
    model of the hub.

    source: a path, or `org/name` of a model in the hub's cache, fetched only where
    HF_HUB_OFFLINE=0 says so. The content decides what it is read as. pretrained: the image tower
    that was fine-tuned; a LoRA adapter is merged into it, a file without projection, which was
    frozen, gets its `proj`, and names, shapes and dtypes must be its own. Without it they must be
    the architecture's, in one dtype.

    Raises InputError for a source that is no such checkpoint, and listing all by which it differs:
    tensors that are missing, extra, mis-shaped, of other dtypes or not finite, and an activation
    that is not the architecture's.
    """
    if is_classifier(architecture):
        from adamerge_core.vision.classifier_checkpoints import (
            read_classifier_tower,
        )  # makes towers

        return read_classifier_tower(source, pretrained, architecture=architecture)
    configuration(architecture)
    content = open_content(source)
    found = format_of(content).read(content, Wanted(architecture, pretrained))
    tensors, remarks = dict(found.tensors), list(found.remarks)
    layout = _image_layout(architecture) if pretrained is None else dict(pretrained)
    taken = tensors.keys() & layout.keys()
    if taken and _PROJECTION in layout and _PROJECTION not in tensors:
        if pretrained is None:
            del layout[_PROJECTION]
            remarks.append("has no projection (proj)")
        else:
            tensors[_PROJECTION] = pretrained[_PROJECTION]
            remarks.append("has no projection of its own: the pretrained model's was taken (proj)")
    text_tower = _text_tower(found, architecture, remarks)
    faults = _activation_faults(found, architecture, remarks)
    whose = f"{architecture}'s" if pretrained is None else "the pretrained model's"
    faults += _faults(tensors, layout, architecture, whose)
    faults += checkpoints.non_finite("text tower", text_tower)
    if faults:
        subject = f"{source} ({found.format}) does not fit {architecture}"
        raise InputError.listing(subject, faults, _SHOWN)
    return ImageTower(
        tensors=tensors,
        format=found.format,
        source=str(source),
        text_tower=text_tower,
        has_projection=_PROJECTION in tensors,
        sha256=content_sha256(tensors),
        remarks=tuple(remarks),
    )


def require_text_tower(tower: ImageTower) -> Mapping[str, Tensor]:
    """Return the text tower of a checkpoint. Raises InputError where it has none."""
    if not tower.text_tower:
        raise InputError(
            f"{tower.source} ({tower.format}): has no whole text tower, which zero-shot heads and "
            "a whole CLIP need; give the pretrained model as a whole CLIP, such as open_clip's or "
            "transformers' CLIPModel"
        )
    return tower.text_tower


def check_different(towers: Mapping[str, ImageTower]) -> None:
    """Raise one InputError that lists the tasks whose image towers are the same to the bit.

    towers: by task.
    """
    tasks: dict[str, list[str]] = {}
    for task, tower in towers.items():
        tasks.setdefault(tower.sha256, []).append(task)
    faults = [
        f"{' and '.join(same)}: are the same model, "
        f"{', '.join(towers[each].source for each in same)}"
        for same in tasks.values()
        if len(same) > 1
    ]
    if faults:
        faults.append("fix: give each task the checkpoint that was fine-tuned on it")
        raise InputError.listing("tasks with the same content", faults)


# --- what else is there -------------------------------------------------------------------------


@cache
def _layout(architecture: str) -> dict[str, Tensor]:
    """Make a CLIP's tensors without values."""
    return dict(create_clip(architecture, device="meta").state_dict())


def _image_layout(architecture: str) -> dict[str, Tensor]:
    named = _layout(architecture).items()
    return {n.removeprefix("visual."): t for n, t in named if n.startswith("visual.")}


def _text_tower(found: Found, architecture: str, remarks: list[str]) -> dict[str, Tensor]:
    """Take the text tower if it is whole; say what is left out."""
    names = set(found.beside) - NUMBERS
    if not names:
        return {}
    wanted = {n: t for n, t in _layout(architecture).items() if not n.startswith("visual.")}
    if names == wanted.keys():
        text = {name: found.beside[name] for name in wanted}
        if all(text[name].shape == wanted[name].shape for name in wanted):
            return text
        remarks.append(f"left out: a text tower whose shapes are not those of {architecture}")
        return {}
    shown = ", ".join([*sorted(names)[:6], *(["…"] if len(names) > 6 else [])])
    remarks.append(f"left out: {len(names)} tensors beside the image tower, {shown}")
    return {}


# --- what does not fit --------------------------------------------------------------------------


def _activation_faults(found: Found, architecture: str, remarks: list[str]) -> list[str]:
    has = "quick_gelu" if uses_quick_gelu(architecture) else "gelu"
    if found.activation is None:
        if has == "gelu" and configuration(architecture)["vision_cfg"].get("layers"):
            remarks.append(
                f"the file does not say its activation, and {architecture} has gelu: OpenAI's "
                "weights, and all fine-tuned from them, need "
                f"{with_activation(architecture, 'quick_gelu')}"
            )
        return []
    if found.activation == has:
        return []
    return [
        f"was trained with {found.activation}, and {architecture} has {has}: features would be "
        f"wrong without an error; take {with_activation(architecture, found.activation)}"
    ]


def _faults(
    tensors: Mapping[str, Tensor], layout: Mapping[str, Tensor], architecture: str, whose: str
) -> list[str]:
    """List by what tensors differ from a layout; whose: the model's that has it."""
    if not tensors.keys() & layout.keys():
        return [f"none of its tensors is one of {whose}: {', '.join(sorted(tensors)[:3])}"]
    unfit = [f"tensor {name} is missing" for name in layout if name not in tensors]
    for name, tensor in tensors.items():
        if name not in layout:
            unfit.append(f"tensor {name} is extra")
        elif tensor.shape != layout[name].shape:
            shape, wanted = list(tensor.shape), list(layout[name].shape)
            unfit.append(f"tensor {name} has shape {shape}, {whose} {wanted}")
    if unfit:
        unfit = [*_guess(tensors, architecture), *sorted(unfit)]
    return _dtype_faults(tensors, layout) + unfit + checkpoints.non_finite("its", tensors)


def _dtype_faults(tensors: Mapping[str, Tensor], layout: Mapping[str, Tensor]) -> list[str]:
    """Compare dtypes with the pretrained model's; without one (meta), with one another."""
    found = {name: tensor.dtype for name, tensor in tensors.items() if name in layout}
    wanted = {name: layout[name].dtype for name in found}
    if all(layout[name].is_meta for name in found):
        floats = [dtype for dtype in found.values() if dtype.is_floating_point]
        widest = max(floats, key=lambda dtype: dtype.itemsize, default=torch.float32)
        wanted = {n: widest if t.is_floating_point else t for n, t in wanted.items()}
    differing = [name for name, dtype in found.items() if dtype != wanted[name]]
    if not differing:
        return []
    name = differing[0]
    return [
        f"{len(differing)} tensors are of another dtype, such as {name}, {found[name]} in place of "
        f"{wanted[name]}: rounding would count as fine-tuning; give all models of a merge in one "
        "dtype"
    ]


def _guess(tensors: Mapping[str, Tensor], architecture: str) -> list[str]:
    """Say what to do about names and shapes: which architecture a ViT's are of, if another's."""
    fix = f"fix: give a checkpoint of {architecture}, all its tensors under their own names"
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    match shapes.get("conv1.weight"), shapes.get("positional_embedding"):
        case (width, _, patch, _), (positions, _):
            side = round((positions - 1) ** 0.5)
        case _:
            return [fix]
    blocks = {n.split(".")[2] for n in shapes if n.startswith("transformer.resblocks.")}
    sizes = {
        "width": width,
        "layers": len(blocks),
        "patch_size": patch,
        "image_size": side * patch,
    }
    if len(shapes.get(_PROJECTION, ())) == 2:
        sizes["embed_dim"] = shapes[_PROJECTION][1]
    names = alike(architecture, sizes)
    if architecture in names:
        return [fix]
    described = ", ".join(f"{name} {value}" for name, value in sizes.items())
    likely = f"this looks like {' or '.join(names[:3])}" if names else "no known model has these"
    return [f"its shapes are not those of {architecture} ({described}): {likely}"]
