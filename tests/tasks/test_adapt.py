"""The stage adapt, where an adaptation goes wrong in the middle."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CLASSES, tiny_problem
from torch import Tensor, nn

from adamerge_core.adamerging.non_finite import NonFiniteError
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.errors import InputError
from adamerge_core.vision.images import LabeledImages
from tasks.adapt import Problem, learn
from tasks.running.work import PlainReporter, Work
from tasks.shared.adaptation import Adaptation
from tasks.suite.methods import AdaptMethod, parse_as

COMPUTE = {"micro_batch": 64, "precision": "float32"}
EVALUATE = {"held_out_fraction": 0.5, "trajectory_images": 4, "trajectory_points": 2}
METHOD = {
    "adapt": "layer_wise",
    "steps": 5,
    "images_per_task": 4,
    "batches_per_step": 1,
    "learning_rate": 0.05,
}


class TurningHead(nn.Module):
    """A head whose logits are NaN from a forward pass on."""

    def __init__(self, head: nn.Module, good: float) -> None:
        super().__init__()
        self.head, self.good = head, good

    def forward(self, features: Tensor) -> Tensor:
        self.good -= 1
        logits: Tensor = self.head(features)
        return logits if self.good >= 0 else logits * math.nan


def problem_of(scratch: Path, good: float) -> tuple[Problem, Adaptation]:
    tiny = tiny_problem()
    heads = dict(tiny.heads)
    name = list(heads)[-1]
    heads[name] = TurningHead(heads[name], good)
    data = {
        task: LabeledImages(images.numpy(), np.arange(len(images)) % CLASSES[task])
        for task, images in tiny.images.items()
    }
    params = {"compute": COMPUTE, "evaluate": EVALUATE}
    work = Work("adapt", {"method": "m", "seed": "0"}, params, (), PlainReporter(scratch))
    problem = Problem(work, tiny.encoder, heads, tiny.task_vectors, {}, data)
    return problem, problem.prepare(parse_as(AdaptMethod, "m", {"m": METHOD}))


def test_the_last_good_coefficients_are_kept_in_a_file(tmp_path: Path) -> None:
    _, whole = problem_of(tmp_path, math.inf)
    expected = [step.coefficients for step in whole.steps(0, None, None)]
    problem, adaptation = problem_of(tmp_path, 4)
    with pytest.raises(InputError, match="their coefficients are kept in") as caught:
        learn(problem, adaptation, "transductive", "transductive")
    cause = caught.value.__cause__
    assert isinstance(cause, NonFiniteError)
    assert 1 < cause.step < len(expected)
    path = tmp_path / "transductive-last-good.safetensors"
    assert str(path) in str(caught.value)
    kept = LearnedCoefficients.load(path)
    vectors = adaptation.engine.task_vectors
    assert torch.equal(kept.values, expected[cause.step - 2])
    assert (kept.layer_names, kept.task_names) == (vectors.layer_names, vectors.task_names)
