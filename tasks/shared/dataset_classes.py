"""Class names and prompts of prepared datasets."""

import json
from collections.abc import Sequence

from tasks.graph import paths


def read_classes(dataset: str) -> tuple[Sequence[str], Sequence[str]]:
    """Read the class names of a dataset, in the order of the labels, and its prompts."""
    text = json.loads(paths.classes(dataset).read_text(encoding="utf-8"))
    return text["classes"], text["templates"]
