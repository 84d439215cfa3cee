"""Running statistics of batch norms in a merge: the mean of the fine-tuned models'."""

from adamerge_core.task_vectors import TaskVectors

_NAMES = ("running_mean", "running_var")


def average_running_statistics(task_vectors: TaskVectors) -> TaskVectors:
    """Take the running statistics of batch norms out of the layers, at the mean over the tasks.

    They are measured, not learned: a sum of their changes may make a variance negative, and
    adaptation has no gradient in them. What comes back has the averaged statistics in `pretrained`,
    so that every merge of it has them too; where no task changed a statistic it is what came.
    Other buffers of floats stay layers, and integers the pretrained ones (see TaskVectors).
    """
    layers = task_vectors.layers
    changed = [name for name in layers if name.rpartition(".")[2] in _NAMES]
    if not changed:
        return task_vectors
    pretrained = dict(task_vectors.pretrained)
    for name in changed:
        pretrained[name] = pretrained[name] + layers[name].mean(dim=0)
    others = {name: layers[name] for name in layers if name not in changed}
    return TaskVectors(pretrained, task_vectors.task_names, others)
