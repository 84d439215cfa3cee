"""Choose the scaling of task arithmetic without a label, and look what labels would have chosen.

Two criteria read unlabeled images only: the mean entropy of the merged model's predictions (lower
is better), and how often it agrees with the fine-tuned models (higher is better).

python examples/choose_scaling.py
"""

import torch
from tiny_models import TASKS, encoder, finetuned, heads, pretrained, test, unlabeled

from adamerge_core import RULES, TaskVectors, correct, percent, softmax_entropy

SCALINGS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


@torch.inference_mode()
def logits(state, name):
    encoder.load_state_dict(state)
    return heads[name](encoder(unlabeled[name]))


task_vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
experts = {name: logits(finetuned[name], name).argmax(dim=-1) for name in TASKS}
entropy, agreement, accuracy = {}, {}, {}
print("scaling  entropy  agreement  accuracy")
for scaling in SCALINGS:
    merged = RULES["task_arithmetic"](task_vectors, scaling=scaling)
    found = {name: logits(merged, name) for name in TASKS}
    same = [(found[name].argmax(dim=-1) == experts[name]).float().mean() for name in TASKS]
    right = [percent(correct(encoder, heads[name], *test[name])) for name in TASKS]
    entropy[scaling] = float(sum(softmax_entropy(x).mean() for x in found.values())) / len(TASKS)
    agreement[scaling] = 100 * float(sum(same)) / len(TASKS)
    accuracy[scaling] = sum(right) / len(TASKS)
    criteria = f"{entropy[scaling]:7.3f}  {agreement[scaling]:9.1f}"
    print(f"{scaling:7}  {criteria}  {accuracy[scaling]:8.1f}")

chosen = {"entropy": min(entropy, key=entropy.get), "agreement": max(agreement, key=agreement.get)}
for criterion, scaling in chosen.items():
    print(f"by {criterion}: {scaling}, accuracy {accuracy[scaling]:.1f}")
print(f"by labels: {max(accuracy, key=accuracy.get)}, accuracy {max(accuracy.values()):.1f}")
