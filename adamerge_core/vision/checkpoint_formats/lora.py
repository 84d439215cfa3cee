"""Folders of peft LoRA adapters, merged into the pretrained image tower."""

from adamerge_core.checkpoints.hugging_face import from_hugging_face, to_hugging_face
from adamerge_core.checkpoints.lora import merge_adapter
from adamerge_core.errors import InputError
from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format


@checkpoint_format("peft LoRA adapter", lambda content: content.is_adapter)
def read_lora(content: Content, wanted: Wanted) -> Found:
    """Merge the adapter, whose names are transformers', into the pretrained image tower.

    Raises InputError where there is no pretrained tower, and as merge_adapter does.
    """
    if wanted.pretrained is None:
        raise InputError(
            f"{content.source}: an adapter is the change of a pretrained model; give that model"
        )
    merged = from_hugging_face(merge_adapter(to_hugging_face(wanted.pretrained), content.path))
    remark = "the adapter was merged into the pretrained model, W + (alpha / r) B A"
    return Found("peft LoRA adapter", merged, remarks=(remark,))
