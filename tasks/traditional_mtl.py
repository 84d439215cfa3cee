"""traditional_mtl: one encoder trained on the union of all training sets, the joint reference."""

from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.training import finetune_settings, train_encoder
from tasks.suite.sections import Finetune, TraditionalMtl


def run(work: Work) -> None:
    """Write the jointly trained encoder, its curve and its validation accuracies."""
    settings = finetune_settings(work.section(Finetune), work.section(TraditionalMtl).steps)
    tasks, model = work.params["tasks"], work.options["model"]
    checkpoint = paths.traditional_mtl(model, paths.tasks_together(tasks), work.seed)
    train_encoder("traditional_mtl", tasks, settings, work, checkpoint)


if __name__ == "__main__":
    run_stage(run)
