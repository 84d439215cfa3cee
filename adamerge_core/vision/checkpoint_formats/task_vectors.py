"""Whole pickled modules of task_vectors, as zip archives or plain pickles; no code of them runs."""

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import Activation
from adamerge_core.vision.checkpoint_formats.contents import Content
from adamerge_core.vision.checkpoint_formats.registry import Found, Wanted, checkpoint_format
from adamerge_core.vision.published_classes import HEADS, QUICK_GELU


def is_pickled_module(content: Content) -> bool:
    """Tell whether the file holds a module and not a state dict."""
    return content.module is not None


@checkpoint_format("task_vectors' pickled module", is_pickled_module)
def read_task_vectors(content: Content, wanted: Wanted) -> Found:
    """Take the tensors of the module's image tower.

    Raises InputError for a classification head.
    """
    if content.module in HEADS:
        raise InputError(
            f"{content.source}: holds a classification head, {content.module.replace(' ', '.')}; "
            "give the file of the image encoder beside it (finetuned.pt)"
        )
    tower, beside = content.split
    activation: Activation | None = "quick_gelu" if QUICK_GELU in content.classes else None
    return Found("task_vectors' pickled module", tower, beside, activation)
