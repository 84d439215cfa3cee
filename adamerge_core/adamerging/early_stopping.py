"""Early stopping: images held out of adaptation, whose entropy ends it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.settings import AdaptationSettings
from adamerge_core.batches import rows_between, take
from adamerge_core.distributed import world
from adamerge_core.entropy import softmax_entropy

_BATCH = 64
"""Images measured at once where the engine has no micro-batch."""


def split(
    count: int, settings: AdaptationSettings, seed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Split image numbers into those to draw and those held out: disjoint ascending int64 arrays.

    Of `count` images the unlabeled share is chosen from `seed`, at least one; of these the held-out
    share, rounded, at least one unless it is 0.
    """
    order = np.random.default_rng([*seed, 0, 0]).permutation(count)
    used = order[: max(1, round(settings.unlabeled_share * count))]
    kept_out = round(settings.held_out_share * len(used))
    if settings.held_out_share > 0:
        kept_out = max(1, kept_out)
    return np.sort(used[kept_out:]), np.sort(used[:kept_out])


class EarlyStopping:
    """A record of the lowest held-out entropy: its parameters, step, and measurements since."""

    def __init__(
        self,
        images: Mapping[str, np.ndarray | Tensor],
        rows: Mapping[str, np.ndarray],
        start: Tensor,
    ) -> None:
        """images: per task [N_k, ...]; rows: per task the held-out ones; start: of step 0."""
        self._images, self._rows = images, rows
        self.best_parameters = start
        self._best_entropy = math.inf
        self._best_step = 0
        self._measured_since = 0

    def measure(self, engine: Engine, step: int, parameters: Tensor) -> dict[str, float]:
        """Merge, and measure each task's mean entropy in nats over its held-out images.

        step: the number of steps done, kept with the parameters where the sum is the lowest. In a
        torch.distributed group every rank calls it; the images are split over ranks.
        """
        engine.merge(parameters)
        entropy = self._mean_entropies(engine)
        total = sum(entropy.values())
        if total < self._best_entropy:
            self.best_parameters = parameters.clone()
            self._best_entropy, self._best_step, self._measured_since = total, step, 0
        else:
            self._measured_since += 1
        return entropy

    def exhausted(self, patience: int) -> bool:
        """Whether the last `patience` measurements were no lower than the lowest."""
        return self._measured_since >= patience

    def _mean_entropies(self, engine: Engine) -> dict[str, float]:
        group, counts = world(), {name: len(rows) for name, rows in self._rows.items()}
        share = group.share(sum(counts.values()))
        own = rows_between(counts, share.start, share.stop)
        totals = [self._total_entropy(engine, n, rows[own[n]]) for n, rows in self._rows.items()]
        means = zip(group.sum(torch.stack(totals)).tolist(), counts.values(), strict=True)
        return dict(zip(counts, (total / count for total, count in means), strict=True))

    def _total_entropy(self, engine: Engine, task_name: str, rows: np.ndarray) -> Tensor:
        size = engine.micro_batch or _BATCH
        total = torch.zeros((), dtype=torch.float64, device=engine.device)
        for start in range(0, len(rows), size):
            batch = take(self._images[task_name], rows[start : start + size])
            total += softmax_entropy(engine.logits(task_name, batch)).sum()
        return total

    def state(self) -> dict[str, Any]:
        """The record without the best parameters, as JSON."""
        return {
            "best_entropy": self._best_entropy,
            "best_step": self._best_step,
            "measured_since": self._measured_since,
        }

    def faults(self, state: Any, step: int) -> list[str]:
        """List what keeps `state` from being what `state()` returns after `step` steps."""
        names = {"best_entropy", "best_step", "measured_since"}
        if not isinstance(state, dict) or set(state) != names:
            return [f"early stopping must have {', '.join(sorted(names))}, nothing else"]
        faults = []
        entropy = state["best_entropy"]
        if type(entropy) is not float or not math.isfinite(entropy):
            faults.append(f"best_entropy = {entropy!r}: must be a finite number")
        for name in ("best_step", "measured_since"):
            if type(state[name]) is not int or not 0 <= state[name] <= step:
                faults.append(f"{name} = {state[name]!r}: must be a whole number from 0 to {step}")
        return faults

    def restore(self, state: Mapping[str, Any], best_parameters: Tensor) -> None:
        """Take up what `state` returned."""
        self.best_parameters = best_parameters
        self._best_entropy, self._best_step = state["best_entropy"], state["best_step"]
        self._measured_since = state["measured_since"]
