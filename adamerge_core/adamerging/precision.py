"""Precisions of the forward and backward passes: bfloat16 products, and the choice of one."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LOWERED = ("bfloat16", "bfloat16_backward")
PRECISIONS = ("float32", *LOWERED, "auto")

_GAIN = 1.15
"""The least gain in speed, as a factor, for which a lowered precision is worth its rounding."""

_DEVIATION = 0.01
"""The most that a lowered precision may change the gradient, relative to its norm. At 0.003
(bfloat16_backward) the final coefficients of the mini suite stay within 0.01 of float32's, at 0.17
(bfloat16) 55 % of them (docs/benchmarks.md)."""

_QUICK = 5e-3
"""Seconds of a short pass: below it there is little to gain, and other loads decide the winner."""

_log = logging.getLogger(__name__)


class LoweredProducts(TorchDispatchMode):
    """A mode in which float32 matrix products and convolutions are computed in bfloat16.

    Their results are float32 again. Products of other dtypes stay as they are, and so do depthwise
    and other grouped convolutions: what these take is memory traffic, not arithmetic.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        grouped = function is _CONVOLUTION and args[_GROUPS] > 1
        if function not in _PRODUCTS or grouped or not any(map(_is_plain, args)):
            return function(*args, **(kwargs or {}))
        results = function(*map(_lowered, args), **(kwargs or {}))
        return tuple(map(_raised, results)) if isinstance(results, tuple) else _raised(results)


_CONVOLUTION = torch.ops.aten.convolution_backward.default
_GROUPS = 9
"""The place of the number of groups among its arguments."""
_PRODUCTS = {
    _CONVOLUTION,
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.addmm.default,
}


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _lowered(value: Any) -> Any:
    return value.bfloat16() if _is_plain(value) else value


def _raised(value: Tensor | None) -> Tensor | None:
    return value.float() if value is not None and value.dtype == torch.bfloat16 else value


def backward(loss: Tensor, precision: str) -> None:
    """Run `loss.backward()`, with products in bfloat16 where the precision says so."""
    with LoweredProducts() if precision == "bfloat16_backward" else nullcontext():
        loss.backward()


def faster_precision(
    run: Callable[[str], None], gradient: Callable[[], Tensor], device: torch.device
) -> str:
    """Measure the precisions, and choose the fastest that hardly changes the gradient.

    run: does one forward and backward pass in the precision given. gradient: the gradient in the
    merging parameters of the last pass. A lowered precision must be at least 1.15 times as fast as
    float32, and change the gradient by at most 1 % of its norm. Where a pass takes less than 5 ms
    in float32 it stays there. The figures are logged.
    """
    plain = _seconds(run, "float32", device)
    if plain < _QUICK:
        _log.info("precision float32: a micro-batch takes %.4f s", plain)
        return "float32"
    expected, fits, measured = gradient(), {"float32": 1.0}, []
    for precision in LOWERED:
        gain = plain / _seconds(run, precision, device)
        deviation = _relative_distance(gradient(), expected)
        measured.append(
            f"{precision} is {gain:.2f} times as fast, its gradient {deviation:.2%} off"
        )
        if gain >= _GAIN and deviation <= _DEVIATION:
            fits[precision] = gain
    chosen = max(fits, key=lambda precision: fits[precision])
    _log.info(
        "precision %s: a micro-batch takes %.4f s in float32; %s (at least %.2f times and at most "
        "%.0f %% are asked for)",
        chosen,
        plain,
        "; ".join(measured),
        _GAIN,
        100 * _DEVIATION,
    )
    return chosen


def _relative_distance(found: Tensor, expected: Tensor) -> float:
    distance, norm = (found - expected).norm().item(), expected.norm().item()
    if not norm:
        return 0.0 if not distance else float("inf")
    return distance / norm


def _seconds(run: Callable[[str], None], precision: str, device: torch.device) -> float:
    """Time a pass in seconds: the fastest of three runs after one that warms up."""
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
