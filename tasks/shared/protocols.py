"""Which test images adaptation sees and which are measured on, by protocol.

transductive is the paper's: adapt and measure on the same unlabeled test images. held_out adapts on
the first part of them and measures on the rest, which is the share `held_out_fraction` of them.
"""


def adapted_rows(count: int, protocol: str, held_out_fraction: float) -> slice:
    """Select the rows of `count` test images whose pixels adaptation may see."""
    return slice(None if protocol == "transductive" else _boundary(count, held_out_fraction))


def measured_rows(count: int, protocol: str, held_out_fraction: float) -> slice:
    """Select the rows of `count` test images that accuracy is measured on."""
    return slice(None if protocol == "transductive" else _boundary(count, held_out_fraction), None)


def _boundary(count: int, held_out_fraction: float) -> int:
    return round(count * (1 - held_out_fraction))
