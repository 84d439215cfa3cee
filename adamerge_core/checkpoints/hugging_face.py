"""CLIP checkpoints in the names of Hugging Face transformers, to and from open_clip's.

In the forms of CLIPVisionModel, CLIPVisionModelWithProjection and CLIPModel, the image tower's with
`vision_model.` before the names (transformers up to 4) or without (5 and newer). Names and
transpositions: the state dicts of transformers 5.24 and open_clip 3.3, compared on outputs by
tests/core/test_hugging_face.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from adamerge_core.errors import InputError

_PREFIX = "vision_model."
_PROJECTION = "visual_projection.weight"
_TEXT_PREFIX = "text_model."
_TEXT_PROJECTION = "text_projection.weight"
_SCALE = "logit_scale"
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

_TEXT_OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    **{f"final_layer_norm.{part}": f"ln_final.{part}" for part in ("weight", "bias")},
    _SCALE: _SCALE,
}
"""The same of the text tower, and of what stands beside both."""

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


def from_hugging_face(state: Mapping[str, Tensor], source: str = "checkpoint") -> dict[str, Tensor]:
    """Rename an image tower's tensors to open_clip's names (those below `visual`).

    A file without a projection, as CLIPVisionModel's, gives no `proj`. The text tower and the logit
    scale of a CLIPModel are left out. Each tensor is asked for once, when it is renamed. source:
    what messages call it. Raises InputError listing tensors of other names and blocks that are not
    whole.
    """
    names = [name for name in state if not _is_text(name)]
    short = {name: name.removeprefix(_PREFIX) for name in names}
    return _renamed(state, short, _OUTSIDE, {_PROJECTION: "proj"}, source, "image")


def text_from_hugging_face(
    state: Mapping[str, Tensor], source: str = "checkpoint"
) -> dict[str, Tensor]:
    """Rename a CLIPModel's other tensors, the text tower's and the logit scale, to open_clip's.

    Empty for a model of images alone. Raises InputError as from_hugging_face does.
    """
    short = {name: name.removeprefix(_TEXT_PREFIX) for name in state if _is_text(name)}
    transposed = {_TEXT_PROJECTION: "text_projection"}
    return _renamed(state, short, _TEXT_OUTSIDE, transposed, source, "text")


def _is_text(name: str) -> bool:
    return name.startswith(_TEXT_PREFIX) or name in (_TEXT_PROJECTION, _SCALE)


def _renamed(
    state: Mapping[str, Tensor],
    short: Mapping[str, str],
    outside: Mapping[str, str],
    transposed: Mapping[str, str],
    source: str,
    tower: str,
) -> dict[str, Tensor]:
    """Rename a tower's tensors.

    short: by name in `state` the one in the tower. outside, transposed: transformers' names to
    open_clip's, of tensors outside the blocks.
    """
    named, attention, faults = dict[str, Tensor](), dict[str, dict[str, str]](), list[str]()
    known: set[str] = set()
    for full, name in short.items():
        block, inside = _block(name)
        module, _, part = inside.removeprefix("self_attn.").partition(".")
        if name in known:
            faults.append(f"{name}: is there with and without its prefix")
        elif name in outside:
            named[outside[name]] = state[full]
        elif name in transposed:
            named[transposed[name]] = state[full].T.contiguous()
        elif inside in _INSIDE:
            named[f"transformer.resblocks.{block}.{_INSIDE[inside]}"] = state[full]
        elif module in _QKV and part in ("weight", "bias"):
            attention.setdefault(f"{block}.attn.in_proj_{part}", {})[module] = full
        elif name != _INDEX:
            faults.append(f"{name}: is no tensor of a CLIP {tower} tower")
        known.add(name)
    for name, parts in attention.items():
        if missing := [which for which in _QKV if which not in parts]:
            faults.append(f"block {name.split('.')[0]}: has no {', '.join(missing)}")
        else:
            stacked = torch.cat([state[parts[which]] for which in _QKV])
            named[f"transformer.resblocks.{name}"] = stacked
    if faults:
        raise InputError.listing(f"{source}: tensors in the names of transformers", faults)
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
