"""Adapt on images that are noisier than those of training, and look at the learned coefficients.

Prints, for growing noise, the accuracy of task arithmetic at its default and of coefficients that
were learned on unlabeled images with that noise; then the coefficients of the noisiest, a row a
tensor.

python examples/robustness.py
"""

import torch
from tiny_models import TASKS, centres, draw, encoder, finetuned, heads, pretrained

from adamerge_core import RULES, AdaptationSettings, Engine, TaskVectors, adapt, correct, percent

task_vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
engine = Engine(encoder, task_vectors, heads)
settings = AdaptationSettings("layer_wise", steps=150, learning_rate=3e-3)
fixed = RULES["task_arithmetic"](task_vectors)


def accuracy(state, test):
    """Mean top-1 accuracy in percent over the tasks."""
    encoder.load_state_dict(state)
    hits = [percent(correct(encoder, heads[name], *test[name])) for name in TASKS]
    return sum(hits) / len(hits)


torch.manual_seed(1)
print("noise  task_arithmetic  adapted")
for noise in (0.6, 0.9, 1.2):
    unlabeled = {name: draw(centres[name], 400, noise)[0] for name in TASKS}
    test = {name: draw(centres[name], 1000, noise) for name in TASKS}
    *_, last = adapt(engine, unlabeled, settings, seed=0)
    adapted = task_vectors.merge(last.coefficients)
    print(f"{noise:5}  {accuracy(fixed, test):15.1f}  {accuracy(adapted, test):7.1f}")

print(f"\n{'':9}", *(f"{name:>8}" for name in TASKS))
for layer, row in zip(task_vectors.layer_names, last.coefficients.tolist(), strict=True):
    print(f"{layer:9}", *(f"{value:8.3f}" for value in row))
