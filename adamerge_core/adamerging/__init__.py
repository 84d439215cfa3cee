"""AdaMerging (arXiv 2310.02575): merging coefficients learned by entropy minimisation."""

from adamerge_core.adamerging.adapt import AdaptationStep, adapt
from adamerge_core.adamerging.adarank import SingularMasks
from adamerge_core.adamerging.engine import Engine, LossAndGradient
from adamerge_core.adamerging.merging_coefficients import MergingCoefficients
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings
from adamerge_core.adamerging.targets import expert_targets

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "AdaptationSettings",
    "AdaptationStep",
    "Engine",
    "LossAndGradient",
    "MergingCoefficients",
    "SingularMasks",
    "adapt",
    "expert_targets",
]
