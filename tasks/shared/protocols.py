"""Which test images adaptation sees and which are measured on, by protocol.

transductive is the paper's: adapt and measure on the same unlabeled test images. held_out adapts on
the first part of them and measures on the rest.
"""

from tasks.suite.schema import Evaluate


def adapted_rows(count: int, protocol: str, settings: Evaluate) -> slice:
    """The rows of `count` test images whose pixels adaptation may see."""
    return slice(None if protocol == "transductive" else _boundary(count, settings))


def measured_rows(count: int, protocol: str, settings: Evaluate) -> slice:
    """The rows of `count` test images that accuracy is measured on."""
    return slice(None if protocol == "transductive" else _boundary(count, settings), None)


def _boundary(count: int, settings: Evaluate) -> int:
    return round(count * (1 - settings.held_out_fraction))
