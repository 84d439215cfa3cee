"""evaluate: top-1 accuracy of one method on every task's test images, by both protocols."""

import argparse
from pathlib import Path

import numpy as np

from adamerge_core.evaluation import correct, percent, with_average
from tasks.graph.build import evaluate_stage
from tasks.graph.paths import PROTOCOLS, REFERENCES, Files
from tasks.running.stage import Reporter, run_stage
from tasks.shared.encoders import load_weights, open_encoder, open_heads, open_split
from tasks.shared.protocols import measured_rows
from tasks.shared.tables import write_json
from tasks.suite.schema import Suite, load_params


def run(suite: Suite, method: str, seed: int, report: Reporter) -> None:
    """Write percent per task and their plain mean, for each protocol.

    Raises InputError for a method that is neither a reference nor one of the suite's.
    """
    files = Files(suite.name)
    encoder, heads = open_encoder(suite), open_heads(suite, suite.task_names)
    test = open_split(files, suite.task_names, "test")
    hits: dict[tuple[Path, str], np.ndarray] = {}
    loaded: Path | None = None
    protocols: dict[str, dict[str, float]] = {}
    for protocol in PROTOCOLS:
        accuracy = {}
        for done, (name, part) in enumerate(test.items(), start=1):
            path = weights(suite, method, protocol, name, seed)
            if (path, name) not in hits:
                if path != loaded:
                    load_weights(encoder, path)
                    loaded = path
                hits[path, name] = correct(encoder, heads[name], part.images, part.labels)
            rows = measured_rows(len(part.labels), protocol, suite.evaluate)
            accuracy[name] = percent(hits[path, name][rows])
            report.progress(done, len(test), f"{method} {protocol}  {name}: {accuracy[name]:.1f} %")
        protocols[protocol] = with_average(accuracy)
        curves = {f"{protocol}/{name}": value for name, value in protocols[protocol].items()}
        report.metrics(curves, 0)
    content = {"method": method, "seed": seed, "protocols": protocols}
    write_json(files.evaluation(method, seed), content)


def weights(suite: Suite, method: str, protocol: str, task_name: str, seed: int) -> Path:
    """The checkpoint that a method uses on a task."""
    files = Files(suite.name)
    if method == "pretrained":
        return files.pretrained
    if method in REFERENCES:
        return files.finetuned(task_name if method == "individual" else method, seed)
    adapts = suite.merge[method].kind == "adapt"
    return files.merged(method, seed, protocol if adapts else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.evaluate", description=__doc__)
    known = f"{', '.join(REFERENCES)}, or one of params.yaml, section merge"
    parser.add_argument("--method", required=True, help=known)
    parser.add_argument("--seed", required=True, type=int, help="of fine-tuning and adaptation")
    method, seed = parser.parse_args().method, parser.parse_args().seed
    suite = load_params()
    run_stage(evaluate_stage(suite, method, seed), lambda report: run(suite, method, seed, report))


if __name__ == "__main__":
    main()
