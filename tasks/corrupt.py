"""corrupt: one corruption of the first test images of one task, at several severities."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adamerge_core.vision.corruptions import corrupt
from adamerge_core.vision.images import open_array, save_array
from tasks.graph.paths import Files
from tasks.running.stage import Reporter, run_stage
from tasks.suite.schema import load_params


def run(
    images: np.ndarray,
    corruption: str,
    severities: Sequence[int],
    seed: int,
    output: Path,
    report: Reporter,
) -> None:
    """Write uint8 [severities, N, H, W, 3]; each image has a seed from `seed` and its index."""
    corrupted = np.empty((len(severities), *images.shape), dtype=np.uint8)
    for row, severity in enumerate(severities):
        for index, image in enumerate(images):
            image_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            corrupted[row, index] = corrupt(np.array(image), corruption, severity, image_seed)
        report.progress(row + 1, len(severities), f"severities of {corruption}")
    save_array(output, corrupted)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.corrupt", description=__doc__)
    parser.add_argument("--task", required=True, help="a task of params.yaml, corrupt.tasks")
    parser.add_argument("--corruption", required=True, help="one of corrupt.corruptions")
    arguments = parser.parse_args()
    task_name, corruption = arguments.task, arguments.corruption

    def body(report: Reporter) -> None:
        suite = load_params()
        files, settings = Files(suite.name), suite.corrupt
        images = open_array(files.images(task_name, "test"), 4)[: settings.images]
        output = files.corrupted(task_name, corruption)
        run(images, corruption, settings.severities, settings.seed, output, report)

    run_stage(f"corrupt@{task_name}-{corruption}", body)


if __name__ == "__main__":
    main()
