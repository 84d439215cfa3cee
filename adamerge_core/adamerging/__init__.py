"""AdaMerging (arXiv 2310.02575): merging coefficients learned by entropy minimisation."""

from adamerge_core.adamerging.adapt import AdaptationSettings, AdaptationStep, adapt
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.objective import softmax_entropy

__all__ = ["AdaptationSettings", "AdaptationStep", "Engine", "adapt", "softmax_entropy"]
