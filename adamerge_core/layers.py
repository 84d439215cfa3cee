"""The layers of an image encoder from shallow to deep, by their names."""

import re
from collections.abc import Sequence

# what comes before the blocks in the networks of timm and open_clip
_STEM = re.compile(
    r"(^|\.)(conv_stem|bn1|conv1|class_embedding|positional_embedding|ln_pre|patch_embed|cls_token"
    r"|pos_embed)\b"
)


def network_order(layer_names: Sequence[str]) -> tuple[list[int], dict[str, range]]:
    """Sort layers from shallow to deep: their indices, and the rows of each block in that order.

    The layers of a block share their names up to the first number (`blocks.3`, `resblocks.11`);
    layers without a number belong to the stem, before the blocks, or to the head, after them.
    """
    keys = [_depth(name) for name in layer_names]
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    blocks: dict[str, range] = {}
    for row, index in enumerate(order):
        label = keys[index][2]
        blocks[label] = range(blocks[label].start if label in blocks else row, row + 1)
    return order, blocks


def layer_kind(layer_name: str) -> str:
    """Name what a layer is in its block: the end of its name, after the last number.

    `trunk.blocks.2.0.conv_pw.weight` is a `conv_pw.weight`; of a layer without a number it is the
    last two parts of the name.
    """
    parts = layer_name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts[-2:])


def _depth(layer_name: str) -> tuple[int, int, str, tuple[tuple[int, str], ...]]:
    """Make a key to sort by: stem, blocks by number, head; then the block's and layer's names."""
    parts = layer_name.split(".")
    natural = tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
    first = next((index for index, part in enumerate(parts) if index and part.isdigit()), None)
    if first is not None:
        return 1, int(parts[first]), f"{parts[first - 1]}.{parts[first]}", natural
    return (0, 0, "stem", natural) if _STEM.search(layer_name) else (2, 0, "head", natural)
