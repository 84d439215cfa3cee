"""Names in the tables of experiments, on which settings, stages and pages agree.

Nothing here imports torch.
"""

ALL_TASKS = "all tasks"
"""In the place of a task: a value that is of no single one; no task may be so called."""

UNDISTURBED = "undisturbed"
"""The condition of a deployment that the others are held against."""

START, LEARNED, ADAPTED = "start", "learned", "adapted"
"""The model that an adaptation starts with, and what two experiments call the one it ends with."""

PRETRAINED, FINETUNED = "pretrained", "finetuned"
"""Before the first step of fine-tuning, and after the last."""

ENTROPY_OBJECTIVE = "entropy"
"""The objective that the others are held against."""

LOSS, SPEARMAN = "loss", "spearman"
"""The metrics mean cross-entropy, in nats, and rank correlation of entropy and cross-entropy."""

TENTHS = range(1, 11)
"""Of the images, from the lowest entropy to the highest: metrics `entropy_1`, `loss_1` and on."""

PARAMETERS, SECONDS, MEMORY = "parameters", "seconds", "peak_gib"
FORWARD, BACKWARD, OPERATIONS = "forward_images", "backward_images", "operations"
"""Learned numbers beside the merged weights; seconds; GiB of memory at the most; images whose
forward and whose backward pass through the encoder was computed; floating-point operations of
these."""
