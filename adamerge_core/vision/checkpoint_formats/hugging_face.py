"""CLIP models of Hugging Face transformers: folders with their configuration, or files alone."""

from collections.abc import Mapping
from typing import Any

from adamerge_core.checkpoints.hugging_face import (
    from_hugging_face,
    is_hugging_face,
    text_from_hugging_face,
)
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import Activation, head_width
from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format

_EPSILON = 1e-5
"""Of open_clip's layer norms."""


def is_transformers(content: Content) -> bool:
    """Tell whether the tensors have the names that transformers gives a CLIP's image tower."""
    return content.module is None and is_hugging_face(content.split[0])


@checkpoint_format("Hugging Face CLIPModel, CLIPVisionModel", is_transformers)
def read_hugging_face(content: Content, wanted: Wanted) -> Found:
    """Rename the image tower's tensors, and the text tower's of a CLIPModel.

    Raises InputError listing tensors of other names, and what the configuration says that no
    image tower of open_clip's computes.
    """
    tensors, beside = content.split
    activation = _activation(content, wanted.architecture)
    text = text_from_hugging_face(tensors, content.source)
    tower = from_hugging_face(tensors, content.source)
    kind = "CLIPVisionModelWithProjection" if "proj" in tower else "CLIPVisionModel"
    kind = "CLIPModel" if text else kind
    remarks = ("names of transformers were brought into open_clip's; q, k and v put together",)
    return Found(f"Hugging Face {kind}", tower, {**beside, **text}, activation, remarks)


def _activation(content: Content, architecture: str) -> Activation | None:
    """Read the activation from a folder's configuration, and check what tensors do not show.

    What a configuration leaves out has the default of CLIPVisionConfig.
    """
    if not content.config:
        return None
    vision: Any = content.config.get("vision_config", content.config)
    if not isinstance(vision, Mapping):
        raise InputError(f"{content.source}: vision_config = {vision!r}: must be an object")
    activation = vision.get("hidden_act", "quick_gelu")
    width, heads = vision.get("hidden_size", 768), vision.get("num_attention_heads", 12)
    epsilon = vision.get("layer_norm_eps", _EPSILON)
    faults = []
    if activation not in ("quick_gelu", "gelu"):
        faults.append(f"hidden_act = {activation!r}: must be quick_gelu or gelu")
    a_head = head_width(architecture)
    if not isinstance(width, int) or not isinstance(heads, int) or width != heads * a_head:
        faults.append(
            f"num_attention_heads = {heads!r} of hidden_size = {width!r}: {architecture} has a "
            f"head for each {a_head} of the width"
        )
    if epsilon != _EPSILON:
        faults.append(f"layer_norm_eps = {epsilon!r}: open_clip's is {_EPSILON}")
    if faults:
        subject = f"{content.source}: its configuration is of another model than {architecture}"
        raise InputError.listing(subject, faults)
    return "quick_gelu" if activation == "quick_gelu" else "gelu"
