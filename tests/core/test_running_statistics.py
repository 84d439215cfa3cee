"""Running statistics of batch norms: averaged in every merge, whatever the rule."""

import copy

import pytest
import torch
from torch import nn

from adamerge_core import RULES, TaskVectors
from adamerge_core.method_choice import MethodChoice
from adamerge_core.running_statistics import average_running_statistics

STATISTICS = ("1.running_mean", "1.running_var")


def states() -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """A model with a batch norm, and two that were fine-tuned in training mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    pretrained = {name: t.clone() for name, t in model.state_dict().items()}
    finetuned = {}
    for number, name in enumerate(("one", "two")):
        tuned = copy.deepcopy(model).train()
        with torch.no_grad():
            for _ in range(40):
                tuned(0.01 * (number + 1) * torch.randn(8, 3, 8, 8))
            for parameter in tuned.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        finetuned[name] = {n: t.clone() for n, t in tuned.state_dict().items()}
    return pretrained, finetuned


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("task_arithmetic", {"scaling": 1.0}),
        ("weight_averaging", {}),
        ("ties_merging", {"scaling": 1.0}),
        ("task_arithmetic", {"scaling": 1.0, "before": "trim_and_elect"}),
    ],
)
def test_a_merge_has_the_mean_of_the_statistics(method: str, settings: dict[str, object]) -> None:
    pretrained, finetuned = states()
    vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    plain = RULES["task_arithmetic"](vectors, scaling=1.0)
    assert (plain["1.running_var"] < 0).all()  # what this is for
    merged = MethodChoice.read(method, settings, 2).merge(vectors, lambda *_: {})
    for name in STATISTICS:
        mean = torch.stack([state[name] for state in finetuned.values()]).mean(dim=0)
        assert torch.allclose(merged[name], mean)
    assert torch.equal(merged["1.num_batches_tracked"], pretrained["1.num_batches_tracked"])


def test_weights_are_merged_as_before_and_the_vectors_stay_as_they_were() -> None:
    pretrained, finetuned = states()
    vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    changed = average_running_statistics(vectors)
    assert set(vectors.layers) - set(changed.layers) == set(STATISTICS)
    plain, merged = (RULES["task_arithmetic"](each, scaling=0.3) for each in (vectors, changed))
    for name in changed.layers:
        assert torch.equal(plain[name], merged[name])
    assert torch.equal(vectors.pretrained["1.running_var"], pretrained["1.running_var"])


def test_frozen_statistics_are_left_alone() -> None:
    pretrained, finetuned = states()
    for state in finetuned.values():
        state |= {name: pretrained[name] for name in STATISTICS}
    vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
    assert average_running_statistics(vectors) is vectors
