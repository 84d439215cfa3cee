"""Which precision the forward and backward passes run in."""

import logging
import time
from collections.abc import Callable

import torch

PRECISIONS = ("float32", "bfloat16", "auto")

_GAIN = 1.15
"""How many times as fast bfloat16 must be to be worth its rounding."""

_QUICK = 5e-3
"""Seconds of a pass below which there is little to gain, and other loads decide what is faster."""

_log = logging.getLogger(__name__)


def faster_precision(run: Callable[[str], None], device: torch.device) -> str:
    """ "bfloat16" where `run("bfloat16")` is at least 1.15 times as fast as "float32", else that.

    run: does one forward and backward pass in the precision given. One that takes less than 5 ms
    in float32 stays there. The figures are logged.
    """
    plain = _seconds(run, "float32", device)
    if plain < _QUICK:
        _log.info("precision float32: a micro-batch takes %.4f s", plain)
        return "float32"
    seconds = {"float32": plain, "bfloat16": _seconds(run, "bfloat16", device)}
    gain = seconds["float32"] / seconds["bfloat16"]
    chosen = "bfloat16" if gain >= _GAIN else "float32"
    _log.info(
        "precision %s: a micro-batch takes %.4f s in float32, %.4f s in bfloat16 (%.2f times as "
        "fast; %.2f are asked for)",
        chosen,
        seconds["float32"],
        seconds["bfloat16"],
        gain,
        _GAIN,
    )
    return chosen


def _seconds(run: Callable[[str], None], precision: str, device: torch.device) -> float:
    """The fastest of three runs after one that warms up."""
    run(precision)
    taken = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        run(precision)
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
