"""traditional_mtl: one encoder trained on the union of all training sets, the joint reference."""

import argparse

from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import finetune_settings
from tasks.shared.training import train_encoder
from tasks.suite.schema import load_params


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
