"""Merge three models, then learn the merging coefficients on unlabeled images.

python examples/merge_and_adapt.py
"""

from tiny_models import TASKS, encoder, finetuned, heads, pretrained, test, unlabeled

from adamerge_core import RULES, AdaptationSettings, Engine, TaskVectors, adapt, correct, percent


def accuracies(state):
    """Top-1 accuracy in percent of one merged model, task by task."""
    encoder.load_state_dict(state)
    return [percent(correct(encoder, heads[name], *test[name])) for name in TASKS]


task_vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
models = {"pretrained": pretrained}
for rule in ("weight_averaging", "task_arithmetic", "ties_merging"):
    models[rule] = RULES[rule](task_vectors)

engine = Engine(encoder, task_vectors, heads)
settings = AdaptationSettings("layer_wise", steps=200, learning_rate=3e-3)
*_, last = adapt(engine, unlabeled, settings, seed=0)
models["layer-wise AdaMerging"] = task_vectors.merge(last.coefficients)

print(f"{'':22}", *(f"{name:>8}" for name in (*TASKS, "average")))
for method, state in models.items():
    found = accuracies(state)
    print(f"{method:22}", *(f"{value:8.1f}" for value in (*found, sum(found) / len(found))))
