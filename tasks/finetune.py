"""finetune: the pretrained image encoder on one task, its zero-shot head frozen."""

import argparse

from tasks.running.stage import run_stage
from tasks.shared.encoders import finetune_settings
from tasks.shared.training import train_encoder
from tasks.suite.schema import load_params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.finetune", description=__doc__)
    parser.add_argument("--task", required=True, help="a task of params.yaml, section download")
    parser.add_argument("--seed", required=True, type=int, help="orders the training images")
    name, seed = parser.parse_args().task, parser.parse_args().seed
    suite = load_params()
    settings = finetune_settings(suite.finetune)
    run_stage(
        f"finetune@{name}-{seed}",
        lambda report: train_encoder(name, [name], settings, suite, seed, report),
    )


if __name__ == "__main__":
    main()
