"""CLIP checkpoints in the names of Hugging Face transformers, to and from open_clip's.

Of the image tower, in the forms of CLIPVisionModel, CLIPVisionModelWithProjection and CLIPModel,
with `vision_model.` before the names (transformers up to 4) or without (5 and newer). Names and
transpositions: the state dicts of transformers 5.24 and open_clip 3.3, compared on outputs by
tests/core/test_hugging_face.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge_core.errors import InputError

_PREFIX = "vision_model."
_PROJECTION = "visual_projection.weight"
_LEFT_OUT = ("text_model.", "text_projection.", "logit_scale")
"""Beside the image tower in a CLIPModel."""
_INDEX = "embeddings.position_ids"
"""A table of indices that older files hold."""

_OUTSIDE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    **{f"pre_layrnorm.{part}": f"ln_pre.{part}" for part in ("weight", "bias")},
    **{f"post_layernorm.{part}": f"ln_post.{part}" for part in ("weight", "bias")},
}
"""transformers' names to open_clip's, outside the blocks; `pre_layrnorm` is how it is spelled."""

_INSIDE = {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }.items()
    for part in ("weight", "bias")
}
"""The same inside a block, but for q, k and v, which open_clip has as one tensor."""

_QKV = ("q_proj", "k_proj", "v_proj")


def is_hugging_face(names: Mapping[str, object]) -> bool:
    """Tell whether these are the tensor names of a CLIP image tower of transformers."""
    return any(name.removeprefix(_PREFIX) == "embeddings.class_embedding" for name in names)


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an image tower's tensors to open_clip's names (those below `visual`).

    A file without a projection, as CLIPVisionModel's, gives no `proj`. The text tower and the logit
    scale of a CLIPModel are left out. Raises InputError listing tensors of other names and blocks
    that are not whole.
    """
    tower = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if not name.startswith(_LEFT_OUT)
    }
    tower.pop(_INDEX, None)
    named, attention, faults = dict[str, Tensor](), dict[str, dict[str, Tensor]](), list[str]()
    for name, tensor in tower.items():
        block, inside = _block(name)
        if name in _OUTSIDE:
            named[_OUTSIDE[name]] = tensor
        elif name == _PROJECTION:
            named["proj"] = tensor.T.contiguous()
        elif inside in _INSIDE:
            named[f"transformer.resblocks.{block}.{_INSIDE[inside]}"] = tensor
        elif inside.removeprefix("self_attn.").split(".")[0] in _QKV:
            which, part = inside.removeprefix("self_attn.").split(".")
            attention.setdefault(f"{block}.attn.in_proj_{part}", {})[which] = tensor
        else:
            faults.append(f"{name}: is no tensor of a CLIP image tower")
    for name, parts in attention.items():
        if missing := [which for which in _QKV if which not in parts]:
            faults.append(f"block {name.split('.')[0]}: has no {', '.join(missing)}")
        else:
            stacked = torch.cat([parts[which] for which in _QKV])
            named[f"transformer.resblocks.{name}"] = stacked
    if faults:
        raise InputError.listing("tensors in the names of transformers", faults)
    return named


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an image tower's tensors from open_clip's names to those of transformers 5.

    `proj`, if there is one, becomes the projection of CLIPVisionModelWithProjection, whose other
    names have `vision_model.` before them; without it they are CLIPVisionModel's. Raises InputError
    listing tensors of other names.
    """
    prefix = _PREFIX if "proj" in state else ""
    outside = {ours: theirs for theirs, ours in _OUTSIDE.items()}
    inside = {ours: theirs for theirs, ours in _INSIDE.items()}
    named, faults = dict[str, Tensor](), list[str]()
    for name, tensor in state.items():
        block, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        if name in outside:
            named[prefix + outside[name]] = tensor
        elif name == "proj":
            named[_PROJECTION] = tensor.T.contiguous()
        elif rest in inside:
            named[f"{prefix}encoder.layers.{block}.{inside[rest]}"] = tensor
        elif rest.startswith("attn.in_proj_"):
            part = rest.removeprefix("attn.in_proj_")
            for which, third in zip(_QKV, tensor.chunk(3), strict=True):
                key = f"{prefix}encoder.layers.{block}.self_attn.{which}.{part}"
                named[key] = third.contiguous()
        else:
            faults.append(f"{name}: is no tensor of a ViT image tower of open_clip's")
    if faults:
        raise InputError.listing("tensors in open_clip's names", faults)
    return named


def _block(name: str) -> tuple[str, str]:
    """Split a name in a block into the block's number and the rest; empty outside of them."""
    number, _, rest = name.removeprefix("encoder.layers.").partition(".")
    return (number, rest) if name.startswith("encoder.layers.") else ("", "")
