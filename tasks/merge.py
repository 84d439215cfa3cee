"""merge: one merged model by a rule that needs no data."""

import argparse

from adamerge_core import checkpoints
from adamerge_core.merging import RULES
from tasks.files import Files
from tasks.stage import run_stage
from tasks.suite import Suite, load_params
from tasks.tensors import open_task_vectors, set_up


def run(suite: Suite, method: str, seed: int) -> None:
    """Write the merged model. Raises InputError for a method that is not one of the suite's."""
    params = suite.merge[method].model_dump()
    files = Files(suite.name)
    task_vectors = open_task_vectors(files, suite.task_names, seed).to(set_up(suite.compute))
    checkpoints.save(files.merged(method, seed), RULES[method](task_vectors, **params))
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
    run_stage(f"merge@{method}-{seed}", lambda _: run(load_params(), method, seed))


if __name__ == "__main__":
    main()
