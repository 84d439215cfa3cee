"""Checkpoints of plain classifiers: encoder, head and class names out of anyone's files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.checkpoints.content_hash import content_sha256
from adamerge_core.checkpoints.torch_files import is_torch_file
from adamerge_core.checkpoints.wrappers import unwrapped
from adamerge_core.errors import InputError, collected
from adamerge_core.vision.architectures import TRANSFORMERS, split_name
from adamerge_core.vision.checkpoint_formats.contents import open_content
from adamerge_core.vision.class_lists import ClassList, checked_classes, stated_classes
from adamerge_core.vision.classifier_architectures import (
    create_classifier,
    quiet_transformers,
    require_transformers,
)
from adamerge_core.vision.classifiers import classifier_name, split_state
from adamerge_core.vision.image_towers import ImageTower

_SHOWN = 20

_UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls classes that have no names."""

_ALIKE = ("model_type", "hidden_act", "num_attention_heads", "layer_norm_eps", "image_size")
"""Entries of a configuration of transformers that change what a model computes, and no shape."""


def read_classifier(
    source: str | Path, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a checkpoint of a classifier like `model`: the encoder's and the head's state dict.

    source: a file, a folder or a model of the hub (see image_towers.read_image_tower), in the names
    of `model.state_dict()`, but for prefixes of wrappers; transformers 5 writes folders of some
    models, ViT's among them, in other names. The head may have another number of classes than the
    model's. Raises InputError listing tensors that do not fit the model.
    """
    classifier = classifier_name(model)
    state = dict(unwrapped(open_content(source).tensors, str(source)))
    encoder, head = split_state(state, classifier)
    wanted, _ = split_state(model.state_dict(), classifier)
    checkpoints.check_same_architecture(wanted, {str(source): encoder})
    return encoder, head


def read_classifier_tower(
    source: str | Path, pretrained: Mapping[str, Tensor] | None = None, *, architecture: str
) -> ImageTower:
    """Read a classifier's encoder, head and class names out of a file, a folder or a hub's model.

    source: as read_image_tower takes it. pretrained: the encoder that was fine-tuned; names, shapes
    and dtypes must be its own. Without it they must be the architecture's, in one dtype. A
    checkpoint without a head is an encoder alone. Raises InputError for a source that is no such
    checkpoint, and listing all by which it differs: tensors that are missing, extra, mis-shaped, of
    other dtypes or not finite, and a head or class names that do not fit.
    """
    content = open_content(source)
    model = create_classifier(architecture)
    name = classifier_name(model)
    state = dict(unwrapped(content.tensors, str(source)))
    split = split_name(architecture)
    if split and split[0] == TRANSFORMERS:
        state = _in_own_names(model, state, content.config, str(source))
    encoder, head = state, dict[str, Tensor]()
    if any(each.startswith(f"{name}.") for each in state):
        encoder, head = split_state(state, name)
    wanted = pretrained if pretrained is not None else _layout(model, name, encoder)
    faults = _name_faults(encoder, wanted, architecture)
    with collected(faults):
        checkpoints.check_same_architecture(wanted, {str(source): encoder})
    faults += checkpoints.non_finite("its head", head)
    width = model.state_dict()[f"{name}.weight"].shape[1]
    if head and head["weight"].shape[1] != width:
        faults.append(
            f"its head takes {head['weight'].shape[1]} features; {architecture} gives {width}"
        )
    remarks = [] if head else ["has no head of its own"]
    classes = None
    with collected(remarks, "its class names are left out"):
        classes = _stated_classes(content.config, content.path, str(source))
    if classes and head and len(classes.names) != len(head["weight"]):
        faults.append(
            f"has {len(classes.names)} class names and a head of {len(head['weight'])} classes"
        )
    if faults:
        raise InputError.listing(f"{source} does not fit {architecture}", faults, _SHOWN)
    return ImageTower(
        tensors=encoder,
        format=f"{architecture.partition(':')[0]} classifier",
        source=str(source),
        text_tower={},
        has_projection=False,
        sha256=content_sha256(encoder),
        remarks=tuple(remarks),
        head=head,
        classes=classes if head else None,
    )


def _name_faults(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], architecture: str
) -> list[str]:
    """Say in a line how far a checkpoint is from the architecture, before each tensor is named."""
    missing, extra = len(wanted.keys() - found.keys()), len(found.keys() - wanted.keys())
    shapes = sum(found[name].shape != wanted[name].shape for name in found.keys() & wanted.keys())
    if not missing + extra + shapes:
        return []
    return [
        f"is no {architecture}: {missing} tensors are missing, {extra} extra, {shapes} of another "
        "shape; give a checkpoint of this architecture, or its own (model)"
    ]


def _layout(model: nn.Module, name: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the encoder's tensors that a checkpoint must have, in the widest dtype found in it."""
    floats = [tensor.dtype for tensor in found.values() if tensor.is_floating_point()]
    widest = max(floats, key=lambda dtype: dtype.itemsize, default=torch.float32)
    encoder, _ = split_state(model.state_dict(), name)
    return {n: t.to(widest) if t.is_floating_point() else t for n, t in encoder.items()}


# --- transformers -------------------------------------------------------------------------------


def _in_own_names(
    model: Any, state: dict[str, Tensor], config: Mapping[str, Any], source: str
) -> dict[str, Tensor]:
    """Give a state dict the names of its model, as transformers itself renames those of files.

    Raises InputError for a configuration that is not the model's, and listing what does not fit.
    """
    own = model.config.to_dict()
    faults = [
        f"config.json says {key} = {config[key]!r}; the model's has {own[key]!r}"
        for key in _ALIKE
        if key in config and key in own and config[key] != own[key]
    ]
    if faults:
        raise InputError.listing(f"{source} is another model", faults)
    if state.keys() == model.state_dict().keys():
        return state
    classes = [len(t) for n, t in state.items() if n == f"{classifier_name(model)}.weight"]
    own_config = type(model.config).from_dict({**own, "num_labels": (classes or [2])[0]})
    dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(dtypes) > 1:
        listed = ", ".join(sorted(map(str, dtypes)))
        raise InputError(f"{source}: its tensors are of {listed}; give a model in one dtype")
    with quiet_transformers(require_transformers()):
        loaded, found = type(model).from_pretrained(
            None,
            config=own_config,
            state_dict=state,
            dtype=dtypes.pop() if dtypes else torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    missing = {name for name in found["missing_keys"] if name.startswith(classifier_name(model))}
    faults = [f"tensor {name} is missing" for name in sorted(found["missing_keys"] - missing)]
    faults += [f"tensor {name} is extra" for name in sorted(found["unexpected_keys"])]
    faults += [
        f"tensor {name} has shape {list(has)}, the model's {list(wants)}"
        for name, has, wants in sorted(found["mismatched_keys"])
    ]
    if faults:
        raise InputError.listing(f"{source} does not fit the model", faults, _SHOWN)
    return {name: t for name, t in loaded.state_dict().items() if name not in missing}


# --- names of classes ---------------------------------------------------------------------------


def _stated_classes(config: Mapping[str, Any], path: Path, source: str) -> ClassList | None:
    """Read the class names of a configuration, or those that save_classifier put into a file."""
    if path.is_file():
        entries = {} if is_torch_file(path) else checkpoints.read_metadata(path)
        return stated_classes(path, entries["head"]) if "head" in entries else None
    names = _by_number(config.get("id2label") or config.get("label_names"), source)
    if not names or all(_UNNAMED.fullmatch(name) for name in names):
        return None
    return checked_classes(ClassList(names, names, source=f"{source}, its configuration"))


def _by_number(entry: object, source: str) -> tuple[str, ...]:
    """Read class names in a list, or by their numbers 0, 1, …"""
    if entry is None:
        return ()
    if isinstance(entry, Mapping):
        numbers = {str(number): name for number, name in entry.items()}
        entry = [numbers.get(str(number)) for number in range(len(numbers))]
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        raise InputError(f"{source}: its configuration names no class for each of 0, 1, …; mend it")
    return tuple(entry)
