"""How merging parameters are learned: the settings, and named presets of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.parameters import REALS, count_faults, number_faults, shown

GRANULARITIES = ("task_wise", "layer_wise", "singular_components")
CLAMPS = ("published", "projected", "none")
SCHEDULES = ("constant", "cosine")
COUNTS = {
    "steps": 10**9,
    "images_per_task": 10**5,
    "batches_per_step": 10**4,
    "measure_every": 10**9,
    "patience": 10**9,
}
"""The settings that are whole numbers from 1, with the most that each may be."""

_MOST_IMAGES = 10**6
"""Images of a task in one step, at most."""


@dataclass(frozen=True)
class AdaptationSettings:
    """How coefficients are learned; the defaults are those of the paper and its published code.

    The optimizer is Adam with betas 0.9 and 0.999 and no weight decay. With early stopping (a
    held-out share above 0) the entropy of the images kept out is measured every few steps, and the
    last step that `adapt` yields holds the coefficients at which it was lowest.
    """

    granularity: str = "layer_wise"
    """task_wise learns [K] coefficients, layer_wise [L, K]; singular_components is AdaRank's."""
    steps: int = 500
    """At most; early stopping may end before."""
    images_per_task: int = 16
    """A batch."""
    learning_rate: float = 1e-3
    """At its highest."""
    start: float = 0.3
    """Every coefficient before the first step: in [0, 1], or with clamp none any finite value."""
    objective: str = "entropy"
    """One of OBJECTIVES."""
    batches_per_step: int = 2
    """Drawn per task; their mean losses are summed before the update. The published code draws 16
    images twice a step."""
    clamp: str = "published"
    """published: the forward pass sees coefficients clamped to [0, 1], and one outside has no
    gradient, so only Adam's momentum moves it. projected: after every update the coefficient itself
    is put back into [0, 1], so that it can return. none: any value, as FusionBench has it."""
    schedule: str = "constant"
    """Of the learning rate: constant as published, or a cosine to zero at the last step."""
    unlabeled_share: float = 1.0
    """Of each task's images that adaptation may see, chosen from the seed, in (0, 1]."""
    held_out_share: float = 0.0
    """Of those, the share kept out for early stopping, in [0, 1); 0 turns it off."""
    measure_every: int = 10
    """Steps between two measurements of the held-out entropy."""
    patience: int = 5
    """Measurements in a row without a new lowest entropy after which adaptation ends."""

    def faults(self) -> list[str]:
        """What is wrong with these settings, a line each."""
        choices = {
            "granularity": GRANULARITIES,
            "objective": tuple(OBJECTIVES),
            "clamp": CLAMPS,
            "schedule": SCHEDULES,
        }
        ranges: dict[str, tuple[str, Callable[[float], bool]]] = {  # written so that NaN fails
            "learning_rate": ("above 0 and finite", lambda rate: 0 < rate < math.inf),
            "start": self._rule_of_start(),
            "unlabeled_share": ("in (0, 1]", lambda share: 0 < share <= 1),
            "held_out_share": ("in [0, 1)", lambda share: 0 <= share < 1),
        }
        faults = [
            f"{name} = {shown(getattr(self, name))}: must be one of {', '.join(known)}"
            for name, known in choices.items()
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in known
        ]
        for name, (rule, holds) in ranges.items():
            faults += number_faults(name, getattr(self, name), rule, holds)
        for name, most in COUNTS.items():
            faults += count_faults(name, getattr(self, name), most=most)
        if not faults and self.images_per_task * self.batches_per_step > _MOST_IMAGES:
            faults.append(
                f"images_per_task = {self.images_per_task}, batches_per_step = "
                f"{self.batches_per_step}: a step takes at most {_MOST_IMAGES} images of a task"
            )
        if self.granularity == "singular_components" and self.clamp != "none":
            faults.append(f"clamp = {self.clamp!r}: singular_components learns logits; set 'none'")
        return faults

    def _rule_of_start(self) -> tuple[str, Callable[[float], bool]]:
        if self.clamp == "none":
            return f"finite, at most {REALS:.2g}", lambda start: abs(start) <= REALS
        return "in [0, 1], or clamp must be 'none'", lambda start: 0 <= start <= 1


PRESETS = {
    "paper": AdaptationSettings(),
    "fast": AdaptationSettings(
        steps=360,
        images_per_task=8,
        batches_per_step=1,
        learning_rate=2e-2,
        objective="self_labelling",
        schedule="cosine",
    ),
    "adarank": AdaptationSettings(
        "singular_components", steps=10_000, batches_per_step=1, clamp="none"
    ),
}
"""Settings by name. paper: AdaMerging's (arXiv 2310.02575). fast: ours, with a fifth of its images:
the experts' labels say more than entropy does, many small batches let coefficients go further than
few large ones, and a cosine allows large steps (docs/presets.md).
adarank: those of the code published with arXiv 2503.22178 for task arithmetic, eight tasks."""


def settings_of(granularity: str, preset: str | None, **changes: Any) -> AdaptationSettings:
    """Make settings of a granularity: a preset's values or the defaults, and `changes`.

    singular_components has no clamp unless `changes` say so, which is a fault (see faults).
    """
    unclamped = {"clamp": "none"} if granularity == "singular_components" else {}
    return replace(PRESETS[preset or "paper"], granularity=granularity, **{**unclamped, **changes})
