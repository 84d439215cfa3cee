"""The archives that OpenAI published its CLIP models in, such as ViT-B-32.pt."""

from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format

FORMAT = "OpenAI's archive"


@checkpoint_format(FORMAT, lambda content: content.is_openai)
def read_openai(content: Content, wanted: Wanted) -> Found:
    """Take the tensors, whose names are open_clip's, of the image tower and the text tower."""
    tower, beside = content.split
    remark = "half precision was widened to float32, as all programs do that fine-tune it"
    return Found(FORMAT, tower, beside, "quick_gelu", (remark,))
