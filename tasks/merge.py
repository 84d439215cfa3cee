"""merge: one merged model by a rule."""

import argparse

from adamerge_core import checkpoints
from adamerge_core.merging import RULES
from tasks.graph.build import merge_stage
from tasks.graph.paths import Files
from tasks.running.stage import run_stage
from tasks.shared.task_vectors import merge_inputs
from tasks.suite.schema import Suite, load_params


def run(suite: Suite, method: str, seed: int) -> None:
    """Write the merged model. Raises InputError for a method that is not one of the suite's."""
    params, rule = suite.merge[method].model_dump(), RULES[method]
    merged = rule(*merge_inputs(suite, rule.needs, seed), **params)
    checkpoints.save(Files(suite.name).merged(method, seed), merged)
    print(f"{method}: merged {len(suite.task_names)} task vectors")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.merge", description=__doc__)
    parser.add_argument(
        "--method",
        required=True,
        help="a rule without sweep or adaptation of params.yaml, section merge",
    )
    parser.add_argument("--seed", required=True, type=int, help="of the task vectors")
    method, seed = parser.parse_args().method, parser.parse_args().seed
    suite = load_params()
    run_stage(merge_stage(suite, method, seed), lambda _: run(suite, method, seed))


if __name__ == "__main__":
    main()
