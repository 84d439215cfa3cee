"""Three tiny classifiers, fine-tuned from one encoder, in the place of your checkpoints.

Images are points in 16 dimensions around ten class centres a task. Pretraining sees moved centres,
so the pretrained encoder is right only some of the time; fine-tuning makes it right on one task.
"""

import torch
from torch import Tensor, nn

TASKS = ("digits", "letters", "signs")

torch.manual_seed(0)
encoder = nn.Sequential(
    nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)
)
heads = {name: nn.Linear(32, 10) for name in TASKS}
centres = {name: torch.randn(10, 16) for name in TASKS}
moved = {name: centres[name] + 1.6 * torch.randn(10, 16) for name in TASKS}


def draw(points: Tensor, count: int, noise: float = 0.6) -> tuple[Tensor, Tensor]:
    """Images [count, 16] and their labels [count]."""
    labels = torch.randint(10, (count,))
    return points[labels] + noise * torch.randn(count, 16), labels


def _train(points: dict[str, Tensor], parameters: list[nn.Parameter], steps: int) -> None:
    adam = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(steps):
        adam.zero_grad()
        for name, where in points.items():
            images, labels = draw(where, 64)
            nn.functional.cross_entropy(heads[name](encoder(images)), labels).backward()
        adam.step()


def _weights() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


_train(moved, list(nn.ModuleList([encoder, *heads.values()]).parameters()), steps=200)
pretrained = _weights()
finetuned = {}
for name in TASKS:
    encoder.load_state_dict(pretrained)
    _train({name: centres[name]}, list(encoder.parameters()), steps=60)
    finetuned[name] = _weights()

unlabeled = {name: draw(centres[name], 400)[0] for name in TASKS}
test = {name: draw(centres[name], 1000) for name in TASKS}
