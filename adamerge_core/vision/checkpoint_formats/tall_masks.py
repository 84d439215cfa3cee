"""State dicts of tall_masks: an image tower and six tensors of the text tower that was cut off."""

from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format

SIX = frozenset(
    {
        "positional_embedding",
        "text_projection",
        "logit_scale",
        "token_embedding.weight",
        "ln_final.weight",
        "ln_final.bias",
    }
)
"""What task_vectors' encoders kept of a CLIP beside its image tower."""


def is_tall_masks(content: Content) -> bool:
    """Tell whether the tensors are an image tower and the six."""
    tower, beside = content.split
    return content.module is None and bool(tower) and beside.keys() == SIX


@checkpoint_format("tall_masks' state dict", is_tall_masks)
def read_tall_masks(content: Content, wanted: Wanted) -> Found:
    """Take the image tower's tensors as they are."""
    tower, beside = content.split
    return Found("tall_masks' state dict", tower, beside)
