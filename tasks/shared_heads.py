"""shared_heads: one head for all tasks of a suite, which have one list of classes."""

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.vision.class_lists import check_same_classes
from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.encoders import read_classes
from tasks.shared.heads import joined_head, probed_head, prompted_head
from tasks.suite.sections import Model


def run(work: Work) -> None:
    """Write the head for each task. Raises InputError where their class names differ."""
    tasks, model = work.params["tasks"], work.options["model"]
    lists = {task: read_classes(task) for task in tasks}
    check_same_classes({task: classes for task, (classes, _) in lists.items()}, "a shared head")
    head = _made(work, tasks, {task: templates for task, (_, templates) in lists.items()})
    for task in tasks:
        checkpoints.save(paths.head(model, task), head)
    print(f"{', '.join(tasks)}: one head of {len(head['weight'])} classes")


def _made(work: Work, tasks: list[str], templates: dict[str, list[str]]) -> StateDict:
    section, (classes, _) = work.section(Model), read_classes(tasks[0])
    if not section.is_classifier:
        prompts = dict.fromkeys(each for task in tasks for each in templates[task])
        return prompted_head(work, classes, list(prompts))
    imported = work.params.get("checkpoints", {}).get("finetuned", {})
    if imported:
        return joined_head(imported, section.architecture, average=work.params["head"] == "average")
    return probed_head(work, tasks, len(classes))


if __name__ == "__main__":
    run_stage(run)
