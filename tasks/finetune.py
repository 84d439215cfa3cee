"""finetune: the pretrained image encoder on one dataset, its zero-shot head frozen."""

from tasks.graph import paths
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.training import finetune_settings, train_encoder
from tasks.suite.sections import Finetune


def run(work: Work) -> None:
    """Write the fine-tuned encoder, its curve and its validation accuracy."""
    dataset = work.options["dataset"]
    checkpoint = paths.finetuned(work.options["model"], dataset, work.seed)
    settings = finetune_settings(work.section(Finetune))
    train_encoder(dataset, [dataset], settings, work, checkpoint)


if __name__ == "__main__":
    run_stage(run)
