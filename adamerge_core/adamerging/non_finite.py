"""Steps of an adaptation that are not finite: refused at once, with the likeliest cause."""

import math
from collections.abc import Mapping

from torch import Tensor

from adamerge_core.adamerging.engine import Engine
from adamerge_core.checkpoints import all_finite, non_finite
from adamerge_core.errors import InputError


class NonFiniteError(InputError):
    """An adaptation met a loss, a gradient or an update that is not finite."""

    def __init__(self, message: str, step: int, parameters: Tensor) -> None:
        super().__init__(message)
        self.step = step
        """The step at which it was met, from 1; 0 is the measurement before the first."""
        self.parameters = parameters
        """The last good ones: those before the step's update."""


def refuse_non_finite(
    engine: Engine,
    step: int,
    parameters: Tensor,
    measured: Mapping[str, float],
    batch: Mapping[str, Tensor],
    gradient: Tensor | None = None,
) -> None:
    """Raise NonFiniteError unless what a step measured at `parameters` is finite.

    measured: losses or entropies by task. batch: the step's images by task, looked into for the
    cause. gradient: on the CPU; None where none was computed.
    """
    tasks = [name for name, value in measured.items() if not math.isfinite(value)]
    if not tasks and (gradient is None or all_finite(gradient)):
        return
    what = "the gradient is not finite"
    if tasks:
        values = ", ".join(f"{measured[name]} of task {name}" for name in tasks)
        what = f"the loss or entropy is {values}"
    cause = _cause(engine, tasks or list(measured), batch)
    raise NonFiniteError(
        f"adaptation, step {step}: {what}\nlikeliest cause: {cause}\n{_kept(step)}",
        step,
        parameters,
    )


def refuse_non_finite_update(
    step: int, before: Tensor, after: Tensor, learning_rate: float
) -> None:
    """Raise NonFiniteError unless the parameters after a step's update are finite."""
    if all_finite(after):
        return
    raise NonFiniteError(
        f"adaptation, step {step}: the update is not finite\nlikeliest cause: learning_rate = "
        f"{learning_rate:g}; lower it\n{_kept(step)}",
        step,
        before,
    )


def _kept(step: int) -> str:
    after = f"after step {step - 1}" if step > 1 else "of the start"
    return f"the last good parameters, those {after}, are in the error's field `parameters`"


def _cause(engine: Engine, tasks: list[str], batch: Mapping[str, Tensor]) -> str:
    """Look for what is not finite: heads, images, the merged model; else it is the step's size."""
    for name in tasks:
        faults = non_finite(f"the head of task {name}", engine.heads[name].state_dict())
        if faults:
            return f"{faults[0]}; give a head of finite ones"
    for name in tasks:
        images = batch.get(name)
        if images is not None and images.is_floating_point() and not all_finite(images):
            return f"images of task {name} that hold values that are not finite; leave them out"
    faults = non_finite("the merged model", engine.encoder.state_dict())
    if faults:
        return f"{faults[0]}, as coefficients that grew too large make; lower the learning rate"
    dtype = next(engine.encoder.parameters()).dtype
    return (
        f"values that overflow {dtype} between finite images and finite logits; lower the learning "
        "rate, or look for images and weights of huge values"
    )
