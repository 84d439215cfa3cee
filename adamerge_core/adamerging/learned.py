"""What an adaptation learns: its parameterisation by granularity, and a model of its parameters."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from adamerge_core.adamerging.adarank import SingularMasks
from adamerge_core.adamerging.engine import Engine, Parameterisation
from adamerge_core.adamerging.merging_coefficients import MergingCoefficients
from adamerge_core.checkpoints import StateDict
from adamerge_core.task_vectors import TaskVectors


def parameterisation_of(
    granularity: str, mask_options: Mapping[str, Any]
) -> Callable[[TaskVectors], Parameterisation]:
    """Choose the parameterisation of a granularity; mask_options: of SingularMasks."""
    if granularity == "singular_components":
        return partial(SingularMasks, **mask_options)
    return MergingCoefficients


def coefficients_of(engine: Engine, parameters: Tensor) -> Tensor:
    """Return the merging coefficients [K] or [L, K] among learned parameters."""
    if isinstance(engine.parameterisation, SingularMasks):
        return engine.parameterisation.coefficients(parameters)
    return parameters


def merged_by(engine: Engine, parameters: Tensor) -> StateDict:
    """Merge the engine's task vectors by learned parameters; its encoder may be overwritten."""
    vectors = engine.task_vectors
    if isinstance(engine.parameterisation, MergingCoefficients):
        return vectors.merge(vectors.expand(parameters))
    engine.merge(parameters)
    state = engine.encoder.state_dict()  # shares its storage with the encoder
    return {name: tensor.clone() for name, tensor in state.items()}
