"""State dicts in open_clip's names: of an image tower, or of a whole CLIP."""

from collections.abc import Mapping

from adamerge_core.vision.architectures import Activation
from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.hugging_face import is_transformers
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format
from adamerge_core.vision.checkpoint_formats.tall_masks import is_tall_masks

_BEGINNINGS = ("class_embedding", "conv1.", "ln_pre.", "transformer.resblocks.", "trunk.")


def is_open_clip(content: Content) -> bool:
    """Tell whether these are the names of an image tower, as open_clip's models have them."""
    tower, _ = content.split
    return (
        content.module is None
        and not content.is_openai
        and not is_transformers(content)
        and not is_tall_masks(content)
        and any(name.startswith(_BEGINNINGS) for name in tower)
    )


@checkpoint_format("open_clip state dict", is_open_clip)
def read_open_clip(content: Content, wanted: Wanted) -> Found:
    """Take the image tower's tensors as they are."""
    tower, beside = content.split
    whole = "whole CLIP" if beside else "image tower"
    return Found(f"open_clip state dict of {whole}", tower, beside, _activation(content))


def _activation(content: Content) -> Activation | None:
    """Read what the open_clip_config.json of a folder says."""
    model = content.config.get("model_cfg")
    if not isinstance(model, Mapping):
        return None
    return "quick_gelu" if model.get("quick_gelu") else "gelu"
