"""Merge fine-tuned models into one, with merging coefficients learned on unlabeled images.

What a program that merges its own models needs can be imported from here; a name is loaded, and
torch where it needs that, when it is first used. docs/guide.md shows them at work. The rules
themselves are reached by name, through RULES, BEFORE and AFTER.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamerge_core import checkpoints, distributed
    from adamerge_core.adamerging.adapt import AdaptationStep, adapt
    from adamerge_core.adamerging.adarank import SingularMasks
    from adamerge_core.adamerging.engine import Engine, LossAndGradient
    from adamerge_core.adamerging.merging_coefficients import MergingCoefficients
    from adamerge_core.adamerging.objective import OBJECTIVES, objective
    from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings
    from adamerge_core.adamerging.targets import expert_targets
    from adamerge_core.analysis import cosine_matrix, inner_products, l2_norms
    from adamerge_core.coefficient_files import LearnedCoefficients
    from adamerge_core.entropy import softmax_entropy
    from adamerge_core.errors import InputError
    from adamerge_core.evaluation import correct, percent, with_average
    from adamerge_core.merging import (
        AFTER,
        BEFORE,
        CRITERIA,
        RULES,
        after,
        before,
        criterion,
        merge_rule,
    )
    from adamerge_core.statistics import fisher_diagonal, gram_matrices
    from adamerge_core.task_vectors import TaskVectors
    from adamerge_core.vision.finetune_models import finetune_folder
    from adamerge_core.vision.finetune_recipes import FinetuneRecipe
    from adamerge_core.vision.folder_accuracy import EvaluationRecipe, folder_accuracies
    from adamerge_core.vision.merge_models import merge_models
    from adamerge_core.vision.merge_recipes import MergeRecipe

__all__ = [
    "AFTER",
    "BEFORE",
    "CRITERIA",
    "OBJECTIVES",
    "PRESETS",
    "RULES",
    "AdaptationSettings",
    "AdaptationStep",
    "Engine",
    "EvaluationRecipe",
    "FinetuneRecipe",
    "InputError",
    "LearnedCoefficients",
    "LossAndGradient",
    "MergeRecipe",
    "MergingCoefficients",
    "SingularMasks",
    "TaskVectors",
    "adapt",
    "after",
    "before",
    "checkpoints",
    "correct",
    "cosine_matrix",
    "criterion",
    "distributed",
    "expert_targets",
    "finetune_folder",
    "fisher_diagonal",
    "folder_accuracies",
    "gram_matrices",
    "inner_products",
    "l2_norms",
    "merge_models",
    "merge_rule",
    "objective",
    "percent",
    "softmax_entropy",
    "with_average",
]

_HOMES = {
    "adamerging": "OBJECTIVES PRESETS AdaptationSettings AdaptationStep Engine LossAndGradient "
    "MergingCoefficients SingularMasks adapt expert_targets",
    "adamerging.objective": "objective",
    "analysis": "cosine_matrix inner_products l2_norms",
    "checkpoints": "checkpoints",  # itself
    "coefficient_files": "LearnedCoefficients",
    "distributed": "distributed",  # itself
    "entropy": "softmax_entropy",
    "errors": "InputError",
    "evaluation": "correct percent with_average",
    "merging": "AFTER BEFORE CRITERIA RULES after before criterion merge_rule",
    "statistics": "fisher_diagonal gram_matrices",
    "task_vectors": "TaskVectors",
    "vision.finetune_models": "finetune_folder",
    "vision.finetune_recipes": "FinetuneRecipe",
    "vision.folder_accuracy": "EvaluationRecipe folder_accuracies",
    "vision.merge_models": "merge_models",
    "vision.merge_recipes": "MergeRecipe",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker would take it for any name at all

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f"{__name__}.{_HOME_OF[name]}")
        return home if name == _HOME_OF[name] else getattr(home, name)
