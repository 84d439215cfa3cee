"""Eight miniature image-classification tasks of 64 x 64 pixels, made from installed wheels."""

from adamerge_core.vision.archive import SPLITS
from adamerge_core.vision.miniature.tasks import (
    TASK_NAMES,
    class_names,
    images,
    module_name,
    supply,
    templates,
)

__all__ = ["SPLITS", "TASK_NAMES", "class_names", "images", "module_name", "supply", "templates"]
