"""traditional_mtl: one encoder trained on the union of all training sets, the joint reference."""

import argparse

from tasks.models import finetune_settings
from tasks.stage import Reporter, run_stage
from tasks.suite import load_params
from tasks.training import train_encoder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.traditional_mtl", description=__doc__)
    parser.add_argument("--seed", required=True, type=int, help="orders the training images")
    seed = parser.parse_args().seed

    def body(report: Reporter) -> None:
        suite = load_params()
        settings = finetune_settings(suite.finetune, suite.traditional_mtl.steps)
        train_encoder("traditional_mtl", suite.task_names, settings, suite, seed, report)

    run_stage(f"traditional_mtl@{seed}", body)


if __name__ == "__main__":
    main()
