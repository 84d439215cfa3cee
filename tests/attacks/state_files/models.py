"""A small problem of adaptation, and strange values: what the parts of the room share."""

import math
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it, which takes seconds: once, before the forks
from torch import nn

from adamerge_core.adamerging import AdaptationSettings, Engine, adapt
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.task_vectors import TaskVectors

TASKS = {"digits": 3, "letters": 4}
CHOSEN = AdaptationSettings(steps=6, images_per_task=3, batches_per_step=1, learning_rate=0.03)


class Problem:
    """An encoder of two layers, two tasks, their heads and images, all of float32."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.encoder = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
        self.pretrained = {n: t.clone() for n, t in self.encoder.state_dict().items()}
        self.models = {
            name: {n: t + torch.randn_like(t) * 0.3 for n, t in self.pretrained.items()}
            for name in TASKS
        }
        self.vectors = TaskVectors.from_checkpoints(self.pretrained, self.models)
        self.heads: dict[str, nn.Module] = {name: nn.Linear(4, n) for name, n in TASKS.items()}
        self.images = {name: torch.randn(20, 5) for name in TASKS}
        self.labels = {name: torch.arange(20) % n for name, n in TASKS.items()}

    def engine(self, **options: Any) -> Engine:
        return Engine(self.encoder, self.vectors, self.heads, precision="float32", **options)

    def adapt(self, settings: AdaptationSettings = CHOSEN, **options: Any) -> list[Any]:
        return list(adapt(self.engine(), self.images, settings, 0, **options))


def interrupted(folder: Path, settings: AdaptationSettings = CHOSEN) -> tuple[Problem, Path]:
    """A problem, and a state file of it after all steps but one."""
    problem, path = Problem(), folder / "state.safetensors"
    problem.adapt(settings, resume_from=path, save_every=1)
    return problem, path


def coefficients() -> LearnedCoefficients:
    """Coefficients of four layers and three tasks."""
    values = torch.linspace(-0.5, 1.5, 12, dtype=torch.float64).reshape(4, 3)
    return LearnedCoefficients(values, ("a", "b", "é", "d"), ("x", "y", "z"))


STRANGE: dict[str, Any] = {
    "True": True,
    "NaN": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "-1": -1,
    "10^30": 10**30,
    "10^400": 10**400,
    "10^5000": 10**5000,
    "text": "1e-3",
    "None": None,
    "a list": [0.5],
    "a tensor": torch.tensor(1),
    "complex": 1j,
}
