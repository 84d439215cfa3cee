"""sweep: a rule at the one scaling that is best on validation images."""

import argparse
from typing import Any

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.merging import RULES
from tasks.graph.build import merge_stage
from tasks.graph.paths import Files
from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import accuracy, open_encoder, open_heads, open_split
from tasks.shared.tables import write_csv
from tasks.shared.task_vectors import merge_inputs
from tasks.suite.schema import Suite, load_params


def run(suite: Suite, method: str, seed: int, report: Reporter) -> None:
    """Merge by every scaling, keep the model with the best average; write it and the curve.

    Raises InputError for a method that is not one of the suite's.
    """
    files = Files(suite.name)
    params = suite.merge[method].model_dump()
    scalings = params.pop("scalings")
    rule = RULES[method.removesuffix("_best")]
    inputs = merge_inputs(suite, rule.needs, seed)
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    data = open_split(files, suite.task_names, "val")
    rows: list[dict[str, Any]] = []
    best_average, best = -1.0, StateDict()
    for done, scaling in enumerate(scalings, start=1):
        merged = rule(*inputs, scaling=scaling, **params)
        encoder.load_state_dict(merged)
        measured = accuracy(encoder, heads, data)
        average = measured["average"]
        rows.append({"scaling": scaling, **measured})
        if average > best_average:
            best_average, best = average, merged
        report.metrics({"validation accuracy": average}, done)
        report.progress(done, len(scalings), f"scaling {scaling}: {average:.1f} %")
    write_csv(files.sweep(method, seed), rows)
    checkpoints.save(files.merged(method, seed), best)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.choose", description=__doc__)
    parser.add_argument(
        "--method", required=True, help="a method with `scalings` of params.yaml, section merge"
    )
    parser.add_argument("--seed", required=True, type=int, help="of the task vectors")
    method, seed = parser.parse_args().method, parser.parse_args().seed
    suite = load_params()
    run_stage(merge_stage(suite, method, seed), lambda report: run(suite, method, seed, report))


if __name__ == "__main__":
    main()
